// The Experts tab: who of the experts works, layer by layer, at a chosen step; the newest step is followed.
import { read } from "./api.js";
import { startHistory } from "./experts_history.js";
import { figure, heatScale, react } from "../plots.js";
import { startRoutes } from "./routes.js";
import { number, percent } from "./words.js";

export function start(stream, context) {
  const tab = new Experts(document.querySelector("[data-experts]"), context);
  const routes = document.querySelector("[data-routes]");
  if (routes) startRoutes(routes, context.urls.routes);
  const history = startHistory(document.querySelector("[data-history]"), context.urls.experts_history);
  stream.addEventListener("event", ({ detail }) => {
    if (detail.kind !== "experts") return;
    tab.arrived(detail.payload);
    history.then((found) => found.arrived());
  });
  return tab.load();
}

class Experts {
  constructor(root, context) {
    this.root = root;
    this.url = context.urls.experts;
    this.slider = root.querySelector("[name=step]");
    this.note = root.querySelector("[data-note]");
    this.steps = [];
    this.known = new Map();
    this.step = Number(new URLSearchParams(location.search).get("step")) || null;
    this.follow = this.step === null;
    this.slider.addEventListener("input", () => this.go(this.steps[Number(this.slider.value)]));
  }

  async load() {
    try {
      const answer = await read(this.url, { step: this.step });
      for (const one of list(answer)) this.remember(one);
      for (const step of answer.steps ?? []) this.remember({ step });
      if (this.step === null || !this.known.has(this.step)) this.step = this.steps.at(-1) ?? null;
      this.draw();
    } catch (error) {
      this.say(error.message);
    }
  }

  remember(measured) {
    if (!this.known.get(measured.step)?.layers) this.known.set(measured.step, measured);
    this.steps = [...this.known.keys()].sort((a, b) => a - b);
  }

  arrived(measured) {
    this.known.set(measured.step, measured);
    this.steps = [...this.known.keys()].sort((a, b) => a - b);
    if (this.follow || this.step === null) this.step = measured.step;
    this.draw();
  }

  async go(step) {
    this.step = step;
    this.follow = step === this.steps.at(-1);
    const url = new URL(location.href);
    if (this.follow) url.searchParams.delete("step");
    else url.searchParams.set("step", step);
    history.replaceState(history.state, "", url);
    if (this.known.get(step)?.layers) this.draw();
    else {
      clearTimeout(this.soon);
      this.soon = setTimeout(() => this.load(), 100);
    }
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
    this.root.querySelector("[data-plots]").hidden = Boolean(text);
  }

  draw() {
    const measured = this.known.get(this.step);
    this.picker();
    if (!measured?.layers?.length) {
      this.say("No expert load has been measured yet. It comes with each step of a mixture-of-experts model.");
      return;
    }
    this.say("");
    this.loads(measured);
    this.bias(measured);
    this.violation(measured);
    this.words(measured);
  }

  picker() {
    this.slider.max = Math.max(this.steps.length - 1, 0);
    this.slider.value = Math.max(this.steps.indexOf(this.step), 0);
    this.slider.disabled = this.steps.length < 2;
    this.root.querySelector("[data-step]").textContent = this.step ?? "–";
    this.root.querySelector("[data-follow]").hidden = !this.follow;
  }

  loads(measured) {
    this.heat("load", measured.layers, { colorscale: heatScale, zmin: 0, unit: "share of tokens", format: ".1%" });
  }

  bias(measured) {
    const all = (measured.bias ?? []).flat().filter((v) => v !== null);
    const card = this.root.querySelector("[data-plot=bias]").closest("[data-card]");
    card.hidden = !all.length;
    if (card.hidden) return;
    const size = Math.max(...all.map(Math.abs), 1e-9);
    this.heat("bias", measured.bias, { colorscale: "RdBu", zmin: -size, zmax: size, unit: "routing bias", format: ".3g" });
  }

  heat(key, rows, { unit, format, ...scale }) {
    const place = this.root.querySelector(`[data-plot=${key}]`);
    const layers = rows.map((_, i) => `layer ${i + 1}`);
    react(place, [{
      type: "heatmap", z: rows, x: rows[0].map((_, i) => i), y: layers, xgap: 2, ygap: 2, ...scale,
      colorbar: { thickness: 8, outlinewidth: 0, tickformat: format, len: 1 },
      hovertemplate: `%{y}, expert %{x}: %{z:${format}} ${unit}<extra></extra>`,
    }], figure({
      xaxis: { title: { text: "expert" }, type: "linear", showgrid: false, dtick: rows[0].length > 32 ? 16 : 1, zeroline: false },
      yaxis: { autorange: "reversed", showgrid: false, type: "category" }, hovermode: "closest",
      meta: { label: `${unit} of each expert by layer at step ${this.step}` },
    }));
  }

  violation(measured) {
    const values = measured.max_violation ?? [];
    this.root.querySelector("[data-plot=violation]").closest("[data-card]").hidden = !values.length;
    if (!values.length) return;
    react(this.root.querySelector("[data-plot=violation]"), [{
      type: "bar", x: values.map((_, i) => `layer ${i + 1}`), y: values, marker: { color: "#0072b2" },
      hovertemplate: "%{x}: the busiest expert has %{y:.0%} more than the mean<extra></extra>",
    }], figure({ yaxis: { title: { text: "busiest over mean − 1" }, rangemode: "tozero" }, xaxis: { type: "category" }, hovermode: "closest",
      meta: { label: "Largest violation by layer" } }));
  }

  words(measured) {
    const rows = measured.layers.map((row) => row.map((v) => v ?? 0));
    let top = { share: -1 };
    rows.forEach((row, layer) => row.forEach((share, expert) => { if (share > top.share) top = { share, layer, expert }; }));
    const silent = rows.flat().filter((v) => v === 0).length;
    this.root.querySelector("[data-words]").textContent =
      `Busiest: expert ${top.expert} of layer ${top.layer + 1} with ${percent(top.share)} of the tokens, ` +
      `${number(top.share * rows[0].length, 3)} times its fair share.` +
      (silent ? ` ${silent} experts got no token.` : " Every expert got tokens.");
  }
}

function list(answer) {
  if (Array.isArray(answer)) return answer;
  if (answer.layers) return [answer];
  return answer.results ?? answer.events ?? [];
}
