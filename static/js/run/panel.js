// One chart: fetches nothing, decides nothing about time; draws the buckets of its series as the view asks.
// Layers from back to front: the band of extremes, the raw line faint, the smoothed line, marks for what is no number.
import { figure, react, resize } from "../plots.js";
import { number } from "./words.js";
import { twema } from "./smoothing.js";

export class Panel {
  constructor(element, series, view, words) {
    Object.assign(this, { element, series, view, words });
    this.plot = element.querySelector("[data-plot]");
    this.readout = element.querySelector("[data-readout]");
    this.note = element.querySelector("[data-note]");
    this.visible = false;
    this.stale = true; // has data or settings that are not drawn
    this.drawn = false;
    this.appliedSeq = 0;
  }

  /** Draws what is there; answers when the picture stands. */
  async draw() {
    this.stale = false;
    const { buckets } = this.series;
    this.note.hidden = buckets.length > 0;
    this.plot.hidden = !buckets.length;
    if (!buckets.length) {
      this.note.textContent = this.series.loaded ? this.words.empty : "Loading…";
      return;
    }
    const { traces, layout } = this.picture(buckets);
    await react(this.plot, traces, layout);
    if (!this.drawn) this.listen();
    this.drawn = true;
  }

  picture(buckets) {
    const { values, axis } = this.view;
    this.xs = buckets.map(axis.of);
    const places = this.xs.map(Number);
    const raw = buckets.map((b) => b.last);
    this.smoothed = twema(places, raw, values.smooth);
    const shown = values.smooth > 0 ? this.smoothed : raw;
    const colour = this.words.colour;
    const traces = [
      ...band(buckets, this.xs, colour),
      line(this.xs, raw, colour, { width: 1, opacity: values.smooth > 0 ? 0.25 : 1 }),
      line(this.xs, shown, colour, { width: 1.8 }),
      marks(buckets, this.xs, values.logy),
    ].filter(Boolean);
    return { traces, layout: this.layout(raw) };
  }

  layout(raw) {
    const { values, axis } = this.view;
    const range = this.view.zoomed ? { range: this.zoomRange(), autorange: false } : { autorange: true };
    return figure({
      xaxis: { type: scale(values), title: { text: axis.title }, nticks: values.x === "time" ? 4 : 7, tickangle: 0, ...range },
      yaxis: { type: values.logy ? "log" : "linear", title: { text: this.series.unit || "" },
        rangemode: raw.every((y) => y === null || y >= 0) ? "nonnegative" : "normal" },
      meta: { label: `${this.words.title} by ${axis.title}` },
    });
  }

  zoomRange() {
    const { values } = this.view;
    if (values.x === "time") return [new Date(values.from * 1000), new Date(values.to * 1000)];
    return values.logx ? [Math.log10(Math.max(values.from, 1e-9)), Math.log10(values.to)] : [values.from, values.to];
  }

  listen() {
    this.plot.on("plotly_relayout", (change) => this.zoomed(change));
    this.plot.on("plotly_doubleclick", () => this.view.set({ from: null, to: null }));
    this.plot.on("plotly_hover", ({ points: [point] }) => this.tell("cursor", { x: Number(plain(point.x)) }));
    this.plot.on("plotly_unhover", () => this.tell("cursor", { x: null }));
  }

  zoomed(change) {
    if (change["xaxis.autorange"]) {
      this.view.set({ from: null, to: null });
      return;
    }
    const [a, b] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (a === undefined || b === undefined) return;
    const { values } = this.view;
    const read = (v) => (values.x === "time" ? plain(v) / 1000 : values.logx ? 10 ** v : Number(v));
    const [from, to] = [a, b].map((v) => Number(read(v).toPrecision(8)));
    this.view.set({ from, to });
  }

  tell(type, detail) {
    this.element.dispatchEvent(new CustomEvent(type, { detail, bubbles: true }));
  }

  /** Shows the value at `x` (a place on the shared axis) above the chart, and a hairline in it. */
  point(x) {
    if (!this.drawn || !this.xs) return;
    const index = x === null ? -1 : nearest(this.xs.map(Number), x);
    const bucket = this.series.buckets[index];
    this.readout.textContent = bucket ? this.sentence(bucket, index) : "";
    this.hairline(index);
  }

  sentence(bucket, index) {
    const smoothed = this.view.values.smooth > 0 ? ` (${number(this.smoothed[index], 3)})` : "";
    const many = bucket.n > 1 ? `, ${number(bucket.min, 3)} to ${number(bucket.max, 3)}` : "";
    return `step ${bucket.step}: ${number(bucket.last, 3)}${smoothed}${many}`;
  }

  hairline(index) {
    this.hair ??= this.plot.parentElement.querySelector("[data-hairline]");
    const { xaxis } = this.plot._fullLayout ?? {};
    this.hair.hidden = index < 0 || !xaxis;
    if (this.hair.hidden) return;
    const left = xaxis._offset + xaxis.d2p(this.view.values.x === "time" ? this.xs[index].getTime() : this.xs[index]);
    this.hair.style.left = `${left}px`;
  }

  resize() {
    if (this.drawn) resize(this.plot);
  }
}

function scale(values) {
  if (values.x === "time") return "date";
  return values.logx ? "log" : "linear";
}

function plain(value) {
  return typeof value === "string" ? new Date(value.replace(" ", "T")).getTime() : value;
}

function line(x, y, colour, { width, opacity = 1 }) {
  return { x, y, mode: y.length === 1 ? "markers" : "lines", line: { color: colour, width }, marker: { color: colour, size: 5 },
    opacity, connectgaps: false, hoverinfo: "none", type: "scatter" };
}

function band(buckets, x, colour) {
  if (!buckets.some((b) => b.n > 1)) return [];
  const edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", type: "scatter", connectgaps: false };
  return [
    { ...edge, y: buckets.map((b) => b.min) },
    { ...edge, y: buckets.map((b) => b.max), fill: "tonexty", fillcolor: `${colour}26` },
  ];
}

/** Crosses at the foot of the chart where a value was NaN or infinite, or cannot stand on a log axis. */
function marks(buckets, x, logy) {
  const what = buckets.map((b) => mark(b, logy));
  if (!what.some(Boolean)) return null;
  const floor = buckets.reduce((low, b) => (b.min !== null && (!logy || b.min > 0) ? Math.min(low, b.min) : low), Infinity);
  const foot = Number.isFinite(floor) ? floor : logy ? 1 : 0;
  return { x: x.filter((_, i) => what[i]), y: what.filter(Boolean).map(() => foot), text: what.filter(Boolean), type: "scatter",
    mode: "markers", marker: { symbol: "x-thin", size: 8, line: { width: 2, color: "#d55e00" } }, hoverinfo: "text",
    cliponaxis: false };
}

function mark(bucket, logy) {
  if (bucket.nonfinite) return `step ${bucket.step}: ${bucket.nonfinite} of ${bucket.n} values are not numbers`;
  if (logy && bucket.min !== null && bucket.min <= 0) return `step ${bucket.step}: ${bucket.min} has no place on a log axis`;
  return "";
}

function nearest(sorted, x) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= x) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[low] - x) <= Math.abs(sorted[high] - x) ? low : high;
}
