// Experts over the steps: balance of every layer, loads and biases of one. The layer is in the address.
import { read } from "./api.js";
import { figure, heatScale, react, SERIES } from "../plots.js";

const AGAIN_MS = 10_000;

export function startHistory(root, url) {
  return new History(root, url).load();
}

class History {
  constructor(root, url) {
    Object.assign(this, { root, url });
    this.layer = Number(new URLSearchParams(location.search).get("layer")) || 0;
    this.picker = root.querySelector("[data-layer]");
    this.picker.addEventListener("change", () => this.choose(Number(this.picker.value)));
  }

  choose(layer) {
    this.layer = layer;
    const address = new URL(location.href);
    if (layer) address.searchParams.set("layer", layer);
    else address.searchParams.delete("layer");
    history.replaceState(history.state, "", address);
    return this.load();
  }

  /** New steps have come: asks again, not more often than every ten seconds. */
  arrived() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      if (!document.hidden) this.load();
    }, AGAIN_MS);
  }

  async load() {
    try {
      this.draw(await read(this.url, { layer: this.layer }));
    } catch (error) {
      this.root.querySelector("[data-history-words]").textContent = error.message;
    }
    return this;
  }

  draw(told) {
    this.root.hidden = told.steps.length < 2;
    if (this.root.hidden) return;
    this.root.querySelector("[data-history-words]").textContent = told.steps.length < told.num_steps ? `${told.steps.length} of ${told.num_steps} steps` : "";
    if (this.picker.length !== told.num_layers) {
      this.picker.replaceChildren(...Array.from({ length: told.num_layers }, (_, i) => new Option(`${i + 1}`, i)));
    }
    this.picker.value = told.layer;
    const layers = Array.from({ length: told.num_layers }, (_, i) => `layer ${i + 1}`);
    const experts = told.load[0].map((_, i) => i);
    this.heat("violation-history", told.steps, layers, columns(told.max_violation), { colorscale: heatScale, zmin: 0, words: "busiest over mean, less 1", format: ".2f" });
    this.lines("entropy", told.steps, layers, columns(told.entropy));
    this.heat("load-history", told.steps, experts, columns(told.load), { colorscale: heatScale, zmin: 0, words: "of the layer's tokens", format: ".1%", noun: "expert " });
    const size = Math.max(...told.bias.flat().map(Math.abs), 1e-9);
    this.heat("bias-history", told.steps, experts, columns(told.bias), { colorscale: "RdBu", zmin: -size, zmax: size, words: "routing bias", format: ".3g", noun: "expert " });
  }

  heat(key, steps, rows, z, { words, format, noun = "", ...scale }) {
    const place = this.root.querySelector(`[data-plot=${key}]`);
    place.closest("[data-card]").hidden = !z.length;
    if (!z.length) return;
    react(place, [{ type: "heatmap", x: steps, y: rows, z, ...scale, colorbar: { thickness: 8, outlinewidth: 0, tickformat: format, len: 1 },
      hovertemplate: `step %{x}, ${noun}%{y}: %{z:${format}} ${words}<extra></extra>` }],
    figure({ xaxis: { title: { text: "step" }, showgrid: false }, yaxis: { autorange: "reversed", showgrid: false, ...(noun ? { title: { text: "expert" }, dtick: rows.length > 32 ? 16 : 1 } : { type: "category" }) },
      hovermode: "closest", meta: { label: place.getAttribute("aria-label") } }));
  }

  lines(key, steps, names, rows) {
    const place = this.root.querySelector(`[data-plot=${key}]`);
    react(place, rows.map((y, i) => ({ type: "scatter", mode: "lines", name: names[i], x: steps, y, line: { color: SERIES[i % SERIES.length], width: 1.6 },
      hovertemplate: `${names[i]} %{y:.3f}<extra></extra>` })),
    figure({ xaxis: { title: { text: "step" } }, yaxis: { title: { text: "entropy over its largest" } }, hovermode: rows.length > 8 ? "closest" : "x unified", showlegend: rows.length <= 8,
      meta: { label: place.getAttribute("aria-label") } }));
  }
}

/** Rows by step as rows by layer or expert. */
function columns(rows) {
  return rows[0]?.map((_, i) => rows.map((row) => row[i] ?? null)) ?? [];
}
