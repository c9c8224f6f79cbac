// The Rollouts tab: the groups of one step side by side, with what each reward component gave.
import { carried, read } from "./api.js";
import { parts } from "./completion.js";
import { h } from "./dom.js";
import { Follow } from "./follow.js";
import { strip } from "./strip.js";
import { percent, signed } from "./words.js";

const PER_PAGE = 8;
const ORDERS = {
  file: () => 0,
  high: (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity),
  low: (a, b) => (a.reward ?? Infinity) - (b.reward ?? Infinity),
  long: (a, b) => b.num_tokens - a.num_tokens,
  gain: (a, b) => (b.advantage ?? -Infinity) - (a.advantage ?? -Infinity),
};
const SHOWN = {
  all: () => true,
  correct: (c) => c.correct === true,
  wrong: (c) => c.correct === false,
  cut: (c) => c.finish_reason === "length",
  unscored: (c) => c.reward === null || c.reward === undefined,
};
const GROUPS = {
  file: () => 0,
  hard: (group) => share(group.all),
  easy: (group) => -share(group.all),
  spread: (group) => -spread(group.all),
  flat: (group) => spread(group.all),
};
const FILTERS = ["show", "order", "groups", "q"];

export function start(stream, context) {
  const root = document.querySelector("[data-rollouts]");
  if (!root.querySelector("form")) return null; // a phase without rollouts
  const tab = new Rollouts(root, context);
  stream.addEventListener("event", ({ detail }) => {
    if (detail.kind === "rollouts") tab.arrived(detail.payload.step);
  });
  return tab.load();
}

class Rollouts {
  constructor(root, context) {
    this.root = root;
    this.url = context.urls.rollouts;
    this.weights = context.weights ?? {};
    this.colours = carried("component-colours");
    this.names = Object.keys(this.weights).sort((a, b) => this.weights[b] - this.weights[a] || a.localeCompare(b));
    this.form = root.querySelector("form");
    this.list = root.querySelector("[data-groups]");
    this.note = root.querySelector("[data-note]");
    this.steps = context.rollout_steps ?? [];
    this.page = 0;
    root.querySelector("[data-legend]")?.replaceChildren(...this.legend());
    const given = new URLSearchParams(location.search);
    for (const name of FILTERS) if (given.get(name)) this.form.elements[name].value = given.get(name);
    this.follow = !given.get("step");
    this.step = given.get("step") ? Number(given.get("step")) : this.steps.at(-1);
    this.form.addEventListener("submit", (e) => e.preventDefault());
    this.form.elements.step.addEventListener("input", (e) => this.go(this.steps[Number(e.target.value)]));
    for (const name of FILTERS) this.form.elements[name].addEventListener("input", () => this.turn(0));
    root.querySelector("[data-previous-step]").addEventListener("click", () => this.shift(-1));
    root.querySelector("[data-next-step]").addEventListener("click", () => this.shift(1));
    root.querySelector("[data-previous]").addEventListener("click", () => this.turn(this.page - 1));
    root.querySelector("[data-next]").addEventListener("click", () => this.turn(this.page + 1));
    this.followed = new Follow(root, context.urls.prompt, (group, label) => this.group(this.choose(group, group.index, "all", this.form.elements.order.value), label));
  }

  legend() {
    return this.names.map((name) => h("span", {},
      h("i.swatch", { style: { background: this.colours[name] ?? "var(--muted)" } }), `${name.replaceAll("_", " ")} ${this.weights[name]}`));
  }

  arrived(step) {
    if (!this.steps.includes(step)) this.steps.push(step);
    this.steps.sort((a, b) => a - b);
    if (this.follow) this.go(step, { follow: true });
    else this.picker();
  }

  shift(by) {
    const next = this.steps[this.steps.indexOf(this.step) + by];
    if (next !== undefined) this.go(next);
  }

  go(step, { follow = step === this.steps.at(-1) } = {}) {
    this.step = step;
    this.follow = follow;
    this.picker();
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.load(), 120);
  }

  picker() {
    const { step } = this.form.elements;
    step.max = Math.max(this.steps.length - 1, 0);
    step.value = this.steps.indexOf(this.step);
    step.disabled = this.steps.length < 2;
    this.root.querySelector("[data-step]").textContent = this.step ?? "–";
    this.root.querySelector("[data-follow]").hidden = !this.follow;
  }

  async load() {
    this.picker();
    if (this.step === undefined) return;
    const wanted = this.step;
    try {
      const answer = await read(this.url, { step: wanted });
      if (wanted !== this.step) return;
      this.groups = answer.groups ?? answer;
      this.turn(this.page);
    } catch (error) {
      this.groups = [];
      this.list.replaceChildren();
      this.say(error.message);
    }
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  turn(page) {
    const { show, order, groups, q } = this.form.elements;
    const key = GROUPS[groups.value] ?? GROUPS.file;
    const found = (this.groups ?? []).map((group, i) => this.choose(group, i, show.value, order.value))
      .filter((g) => g.completions.length && matches(g, q.value)).sort((a, b) => key(a) - key(b));
    const pages = Math.max(Math.ceil(found.length / PER_PAGE), 1);
    this.page = Math.min(Math.max(page, 0), pages - 1);
    const visible = found.slice(this.page * PER_PAGE, (this.page + 1) * PER_PAGE);
    this.list.replaceChildren(...visible.map((group) => this.group(group)));
    this.say(found.length ? "" : "No rollout of this step fits the filter.");
    const pager = this.root.querySelector("[data-pager]");
    pager.hidden = pages < 2;
    pager.querySelector("[data-page]").textContent = `${this.page + 1} of ${pages}`;
    pager.querySelector("[data-previous]").disabled = this.page === 0;
    pager.querySelector("[data-next]").disabled = this.page === pages - 1;
    this.address();
  }

  address() {
    const url = new URL(location.href);
    if (this.follow) url.searchParams.delete("step");
    else url.searchParams.set("step", this.step);
    for (const name of FILTERS) {
      const { value } = this.form.elements[name];
      if (!value || value === "all" || value === "file") url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    history.replaceState(history.state, "", url);
  }

  choose(group, index, show, order) {
    const completions = group.completions.filter(SHOWN[show] ?? SHOWN.all).sort(ORDERS[order] ?? ORDERS.file);
    return { ...group, index, all: group.completions, completions };
  }

  group(group, label = `group ${group.index + 1}`) {
    const right = group.all.filter((c) => c.correct === true).length;
    const judged = group.all.some((c) => c.correct !== null && c.correct !== undefined);
    const equal = new Set(group.all.map((c) => c.reward)).size === 1 && group.all.length > 1;
    return h("article.card.rollout-group", {},
      h("header.rollout-head", {},
        h("div.rollout-prompt", {}, group.prompt, " ", this.follower(group)),
        h("div.muted", {}, [
          label,
          group.answer === null || group.answer === undefined ? null : `expected ${group.answer}`,
          judged ? `${right} of ${group.all.length} correct (${percent(right / group.all.length, 0)})` : null,
          equal ? "all rewards equal: this group teaches nothing" : null,
        ].filter(Boolean).join(" · "))),
      strip(fold(group.completions).map(([completion, times]) => this.completion(completion, times)), `Completions of ${label}`));
  }

  /** The button that asks for this prompt at every step; the prompt that is followed has none. */
  follower(group) {
    if (group.step !== undefined || this.steps.length < 2) return "";
    return h("button.btn.small", { type: "button", "data-follow-prompt": "", onclick: () => this.followed.open(this.step, group.index) }, "Follow over the steps");
  }

  completion(completion, times) {
    const [thinking, answer] = parts(completion.text);
    const bar = this.bar(completion.components ?? {});
    return h("article.rollout", { "data-times": times },
      thinking ? h("div.rollout-think", {}, thinking) : null,
      h("div.rollout-answer", {}, answer || "(no answer)", " ", verdict(completion),
        times > 1 ? h("span.tag", { title: `${times} samples of this group are exactly this one` }, `×${times}`) : null),
      h("div.muted", {}, [
        completion.reward === null || completion.reward === undefined ? "unscored" : `reward ${completion.reward.toFixed(2)}`,
        completion.advantage === null || completion.advantage === undefined ? null : `advantage ${signed(completion.advantage)}`,
        `${completion.num_tokens} tokens`,
        completion.finish_reason === "length" ? "cut at the length limit" : null,
      ].filter(Boolean).join(" · ")),
      ...(bar ?? []));
  }

  /** Each component's share of the reward, as wide as weight × score. */
  bar(components) {
    const others = Object.keys(components).filter((name) => !this.names.includes(name));
    const entries = [...this.names, ...others].filter((name) => name in components).map((name) => [name, components[name]]);
    if (!entries.length) return null;
    const total = entries.reduce((sum, [name]) => sum + Math.abs(this.weights[name] ?? 1 / entries.length), 0) || 1;
    const words = entries.map(([name, v]) => `${name.replaceAll("_", " ")} ${v === null ? "unscored" : v.toFixed(2)}`);
    return [h("div.reward-parts", { "aria-hidden": "true" },
      entries.map(([name, value]) => {
        const weight = Math.abs(this.weights[name] ?? 1 / entries.length);
        const width = (Math.max(value ?? 0, 0) * weight) / total;
        return h("i", { style: { width: `${width * 100}%`, background: this.colours[name] ?? "var(--muted)" } });
      })), h("p.reward-words.muted", {}, words.join(" · "))];
  }
}

/** Samples that are equal in everything shown, once each with how often: [completion, times]. */
function fold(completions) {
  const found = new Map();
  for (const completion of completions) {
    const { text, reward, advantage, correct, finish_reason: reason, components } = completion;
    const key = JSON.stringify([text, reward, advantage, correct, reason, components]);
    found.set(key, [completion, (found.get(key)?.[1] ?? 0) + 1]);
  }
  return [...found.values()];
}

function verdict(completion) {
  if (completion.correct === true) return h("span.badge.state-succeeded", {}, "correct");
  if (completion.correct === false) return h("span.badge.state-failed", {}, "wrong");
  return h("span.badge.state-queued", {}, "not judged");
}

function share(completions) {
  return completions.filter((c) => c.correct === true).length / completions.length;
}

/** Distance of the best reward from the worst; what is unscored counts for nothing. */
function spread(completions) {
  const rewards = completions.map((c) => c.reward).filter((r) => r !== null && r !== undefined);
  return rewards.length ? Math.max(...rewards) - Math.min(...rewards) : -1;
}

function matches(group, text) {
  const wanted = text.trim().toLowerCase();
  return !wanted || group.prompt.toLowerCase().includes(wanted) || String(group.answer ?? "").toLowerCase().includes(wanted);
}
