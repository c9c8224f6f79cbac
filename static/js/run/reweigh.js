// The stored rollouts under other weights, and how the components go together. Weights are in the address as `weights=`.
import { read } from "./api.js";
import { parts } from "./completion.js";
import { h } from "./dom.js";
import { figure, react, SERIES } from "../plots.js";
import { number, percent, signed } from "./words.js";

const TYPING_MS = 250;

export function startReweigh(root, context, colours) {
  return new Reweigh(root, context, colours).begin();
}

class Reweigh {
  constructor(root, context, colours) {
    Object.assign(this, { root, url: context.urls.rewards, own: context.weights ?? {}, colours });
    this.form = root.querySelector("[data-weights]");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.soon());
    root.querySelector("[data-reset]").addEventListener("click", () => this.fill(this.own).ask());
  }

  /** The first answer says which components there are. */
  async begin() {
    const given = new URLSearchParams(location.search).get("weights");
    const answer = await this.read(given);
    if (!answer) return;
    this.names = answer.components;
    this.form.replaceChildren(...this.names.map((name) => h("label.inline", {},
      h("i.swatch", { style: { background: this.colours[name] ?? "var(--muted)" } }), name.replaceAll("_", " "), " ",
      h("input", { type: "number", step: "0.05", name, "aria-label": `Weight of ${name.replaceAll("_", " ")}` }))));
    this.fill(answer.weights);
    this.draw(answer);
    if (answer.num_left) this.ask();
  }

  fill(weights) {
    for (const name of this.names ?? []) this.form.elements[name].value = weights[name] ?? 0;
    return this;
  }

  get asked() {
    return this.names.map((name) => `${name}:${Number(this.form.elements[name].value) || 0}`).join(",");
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), TYPING_MS);
  }

  async ask() {
    const asked = this.asked;
    const url = new URL(location.href);
    url.searchParams.set("weights", asked);
    history.replaceState(history.state, "", url);
    const answer = await this.read(asked);
    if (!answer || asked !== this.asked) return;
    this.draw(answer);
    if (answer.num_left) this.ask(); // what was read is kept: it goes on from there
  }

  async read(weights) {
    try {
      return await read(this.url, { weights });
    } catch (error) {
      this.say(error.message);
      return null;
    }
  }

  say(text) {
    this.root.querySelector("[data-words]").textContent = text;
  }

  draw(answer) {
    const { steps } = answer;
    this.say(`${number(answer.num_rollouts, 7)} rollouts of ${steps.length === answer.num_steps ? "" : `${steps.length} of `}${answer.num_steps} steps${answer.num_left ? "; reading the rest…" : ""}`);
    this.numbers(steps);
    this.lines("reweighed", steps, "before", "after", "mean reward", (v) => v);
    this.lines("flat", steps, "flat_before", "flat_after", "share of groups", (v, step) => (step.num_groups ? v / step.num_groups : null));
    this.correlation(answer);
    this.examples(answer.examples);
    const start = this.root.querySelector("[data-start]");
    if (start) {
      const url = new URL(start.href);
      url.searchParams.set("weights", this.asked);
      start.href = url.href;
    }
  }

  numbers(steps) {
    const sum = (key) => steps.reduce((total, step) => total + step[key], 0);
    const [groups, rollouts] = [sum("num_groups"), sum("num_rollouts")];
    const mean = (key) => {
      const known = steps.filter((step) => step[key] !== null);
      const weight = known.reduce((total, step) => total + step.num_rollouts, 0);
      return weight ? known.reduce((total, step) => total + step[key] * step.num_rollouts, 0) / weight : null;
    };
    const [before, after] = [mean("before"), mean("after")];
    const stats = [
      ["Mean reward", number(after), before === null || after === null ? "" : `${signed(after - before, 3)} to before`],
      ["Another would be the best", percent(groups ? sum("other_best") / groups : null), `${sum("other_best")} of ${groups} groups`],
      ["Groups that teach nothing", percent(groups ? sum("flat_after") / groups : null), `before ${percent(groups ? sum("flat_before") / groups : null)}`],
      ["Unscored", percent(rollouts ? sum("unscored") / rollouts : null), "a component that counts said nothing"],
    ];
    this.root.querySelector("[data-numbers]").replaceChildren(...stats.map(([label, value, detail]) =>
      h("div.stat", {}, h("span.muted", {}, label), h("b", {}, value), h("span.muted", {}, detail || " "))));
  }

  lines(key, steps, before, after, title, of) {
    const line = (name, label, color, dash) => ({
      type: "scatter", mode: steps.length === 1 ? "markers" : "lines", name: label, x: steps.map((s) => s.step), y: steps.map((s) => (s[name] === null ? null : of(s[name], s))),
      line: { color, width: 1.8, dash }, marker: { color, size: 6 }, hovertemplate: `${label} %{y:.3f}<extra></extra>`,
    });
    react(this.root.querySelector(`[data-plot=${key}]`), [line(before, "as it was", SERIES[7], "dot"), line(after, "under these weights", SERIES[0])],
      figure({ xaxis: { title: { text: "step" } }, yaxis: { title: { text: title }, rangemode: "tozero" }, hovermode: "x unified", showlegend: true,
        meta: { label: `${title} by step, as it was and under these weights` } }));
  }

  correlation({ names, correlation }) {
    const words = names.map((name) => name.replaceAll("_", " "));
    const place = this.root.querySelector("[data-plot=correlation]");
    place.closest("[data-card]").hidden = names.length < 2;
    if (names.length < 2) return;
    react(place, [{ type: "heatmap", x: words, y: words, z: correlation, zmin: -1, zmax: 1, colorscale: "RdBu", xgap: 2, ygap: 2,
      text: correlation.map((row) => row.map((r) => (r === null ? "" : r.toFixed(2)))), texttemplate: "%{text}",
      colorbar: { thickness: 8, outlinewidth: 0, len: 1 }, hovertemplate: "%{y} and %{x}: %{z:.2f}<extra></extra>" }],
    figure({ xaxis: { type: "category", showgrid: false, tickangle: -30 }, yaxis: { type: "category", autorange: "reversed", showgrid: false }, hovermode: "closest",
      meta: { label: "Correlation of reward components, correctness and length" } }));
  }

  examples(found) {
    const one = (label, completion) => h("div", {}, h("span.muted", {}, `${label}, reward ${number(completion.before)} → ${number(completion.after)}`),
      h("div.rollout-answer", {}, cut(parts(completion.text)[1] || completion.text)));
    this.root.querySelector("[data-examples]").replaceChildren(...(found.length
      ? found.map(({ step, prompt, was, now }) => h("div.rollout.spaced", {}, h("div.rollout-prompt", {}, cut(prompt)), h("div.muted", {}, `step ${step}`), one("was the best", was), one("would be", now)))
      : [h("p.muted", {}, "The same completions would be the best in every group.")]));
  }
}

function cut(text) {
  return text.length > 240 ? `${text.slice(0, 239)}…` : text;
}
