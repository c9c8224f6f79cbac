// One prompt over the steps: what was answered to it each time that it was asked. In the address as `follow=STEP.GROUP`.
import { read } from "./api.js";
import { figure, react, SERIES } from "../plots.js";

const NUM_SHOWN = 40;

export class Follow {
  /** `render(group, label)` draws a group as the tab does. */
  constructor(root, url, render) {
    Object.assign(this, { root, url, render });
    this.section = root.querySelector("[data-followed]");
    this.view = root.querySelector("[data-step-view]");
    root.querySelector("[data-followed-close]").addEventListener("click", () => this.close());
    const given = /^(\d+)\.(\d+)$/.exec(new URLSearchParams(location.search).get("follow") ?? "");
    if (given) this.open(Number(given[1]), Number(given[2]));
  }

  async open(step, group) {
    this.show(true);
    this.address(`${step}.${group}`);
    this.say("Reading the steps…");
    try {
      this.draw(await read(this.url, { step, group }));
    } catch (error) {
      this.say(error.message);
    }
  }

  close() {
    this.show(false);
    this.address(null);
  }

  show(on) {
    this.section.hidden = !on;
    this.view.hidden = on;
  }

  address(value) {
    const url = new URL(location.href);
    if (value === null) url.searchParams.delete("follow");
    else url.searchParams.set("follow", value);
    history.replaceState(history.state, "", url);
  }

  say(text) {
    this.root.querySelector("[data-followed-words]").textContent = text;
  }

  draw({ prompt, found, num_read: read, num_steps: all }) {
    const often = `asked ${found.length === 1 ? "once" : `${found.length} times`} in ${read} steps`;
    this.say(`“${cut(prompt)}” · ${often}${read < all ? ` that were read, of ${all}` : ""}`);
    const dots = found.flatMap(({ step, group }) => group.completions.map((c) => [step, c.reward]));
    const means = found.map(({ step, group }) => [step, mean(group.completions.map((c) => c.reward))]);
    react(this.section.querySelector("[data-plot=followed]"), [
      { type: "scatter", mode: "markers", x: dots.map(([x]) => x), y: dots.map(([, y]) => y), marker: { size: 6, color: SERIES[4], opacity: 0.6 },
        hovertemplate: "step %{x}: reward %{y:.3f}<extra></extra>" },
      { type: "scatter", mode: "lines+markers", x: means.map(([x]) => x), y: means.map(([, y]) => y), line: { color: SERIES[0], width: 1.8 },
        marker: { size: 5, color: SERIES[0] }, hovertemplate: "step %{x}: mean %{y:.3f}<extra></extra>" },
    ], figure({ xaxis: { title: { text: "step" } }, yaxis: { title: { text: "reward" } }, hovermode: "closest",
      meta: { label: "Reward of the answers to one prompt by step" } }));
    const newest = [...found].reverse().slice(0, NUM_SHOWN);
    this.section.querySelector("[data-followed-groups]").replaceChildren(
      ...newest.map(({ step, group }) => this.render({ ...group, step, index: 0 }, `step ${step}`)));
  }
}

function mean(rewards) {
  const known = rewards.filter((reward) => reward !== null && reward !== undefined);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
}

function cut(text) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 80 ? `${line.slice(0, 79)}…` : line;
}
