// One chart: fetches nothing, decides nothing about time; draws the buckets of its series as the view asks.
// Layers from back to front: the band of extremes, the raw line faint, the smoothed line, points that stand alone, marks
// for what is no number. What an axis cannot show is said in words under the chart.
import { below, crossed, logTicks, placed, unplaced, windowWords } from "./axis.js";
import { h } from "./dom.js";
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
    this.shown = placed(this.series.buckets, this.view);
    const why = this.nothing();
    this.note.hidden = !why;
    this.plot.hidden = Boolean(why);
    this.note.textContent = why;
    this.say(why ? "" : [unplaced(this.series.buckets, this.view), below(this.shown, this.view)].filter(Boolean).join(" "));
    if (why) return;
    const { traces, layout } = this.picture(this.shown);
    await react(this.plot, traces, layout);
    if (!this.drawn) this.listen();
    this.drawn = true;
  }

  /** Why there is nothing to draw; "" when there is. */
  nothing() {
    const { series, view, shown } = this;
    if (!series.buckets.length && !series.loaded) return "Loading…";
    if (view.zoomed && !crossed(shown, view)) return windowWords(view);
    if (!series.buckets.length) return this.words.empty;
    return shown.length ? "" : unplaced(series.buckets, view);
  }

  /** A sentence under the chart, for what it leaves out. */
  say(sentence) {
    if (!this.aside && !sentence) return;
    this.aside ??= this.element.appendChild(h("p.muted.plot-aside", { "data-aside": "", role: "note" }));
    this.aside.textContent = sentence;
    this.aside.hidden = !sentence;
  }

  picture(buckets) {
    const { values, axis } = this.view;
    this.xs = buckets.map(axis.of);
    const places = this.xs.map(Number);
    const fits = (y) => (values.logy && !(y > 0) ? null : y); // Plotly would draw a line down to nowhere
    const all = buckets.map((b) => b.last);
    this.smoothed = twema(places, all, values.smooth);
    const raw = all.map(fits);
    const shown = values.smooth > 0 ? this.smoothed.map(fits) : raw;
    const colour = this.words.colour;
    const traces = [
      ...band(buckets, this.xs, colour, fits),
      line(this.xs, raw, colour, { width: 1, opacity: values.smooth > 0 ? 0.25 : 1 }),
      line(this.xs, shown, colour, { width: 1.8 }),
      alone(this.xs, raw, colour),
      marks(buckets, this.xs, values.logy),
    ].filter(Boolean);
    return { traces, layout: this.layout(buckets, all) };
  }

  layout(buckets, raw) {
    const { values, axis, logx } = this.view;
    const inView = this.view.zoomed ? [values.from, values.to] : buckets.map((b) => b[axis.key]);
    const heights = buckets.flatMap((b) => [b.last, b.min, b.max]);
    const range = this.view.zoomed ? { range: this.zoomRange(), autorange: false } : { autorange: true };
    return figure({
      xaxis: { type: scale(this.view), title: { text: axis.title }, nticks: values.x === "time" ? 4 : 7, tickangle: 0, ...range,
        ...(logx ? logTicks(inView) : {}) },
      yaxis: { type: values.logy ? "log" : "linear", title: { text: this.series.unit || "" }, ...(values.logy ? logTicks(heights) : {}),
        rangemode: raw.every((y) => y === null || y >= 0) ? "nonnegative" : "normal" },
      meta: { label: [`${this.words.title} by ${axis.title}`, this.aside?.textContent].filter(Boolean).join(". ") },
    });
  }

  zoomRange() {
    const { values } = this.view;
    if (values.x === "time") return [new Date(values.from * 1000), new Date(values.to * 1000)];
    return this.view.logx ? [Math.log10(Math.max(values.from, 1e-9)), Math.log10(values.to)] : [values.from, values.to];
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
    const read = (v) => (values.x === "time" ? plain(v) / 1000 : this.view.logx ? 10 ** v : Number(v));
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
    const bucket = this.shown[index];
    this.readout.textContent = bucket ? this.sentence(bucket, index) : "";
    this.hairline(index);
  }

  sentence(bucket, index) {
    const smoothed = this.view.values.smooth > 0 ? ` (${number(this.smoothed[index], 3)} smoothed)` : "";
    const many = bucket.n > 1 ? `, ${number(bucket.min, 3)} to ${number(bucket.max, 3)}` : "";
    return `step ${bucket.step}: ${number(bucket.last, 3)}${smoothed}${many}`;
  }

  hairline(index) {
    this.hair ??= this.plot.parentElement.querySelector("[data-hairline]");
    const { xaxis } = this.plot._fullLayout ?? {};
    this.hair.hidden = index < 0 || !xaxis;
    if (this.hair.hidden) return;
    const left = xaxis.d2p(this.view.values.x === "time" ? this.xs[index].getTime() : this.xs[index]);
    this.hair.hidden = left < 0 || left > xaxis._length; // a neighbour outside the window
    this.hair.style.left = `${xaxis._offset + left}px`;
  }

  resize() {
    if (this.drawn) resize(this.plot);
  }
}

function scale(view) {
  if (view.values.x === "time") return "date";
  return view.logx ? "log" : "linear";
}

function plain(value) {
  return typeof value === "string" ? new Date(value.replace(" ", "T")).getTime() : value;
}

function line(x, y, colour, { width, opacity = 1 }) {
  return { x, y, mode: "lines", line: { color: colour, width }, opacity, connectgaps: false, hoverinfo: "none", type: "scatter" };
}

/** Points that no line reaches, because both neighbours are missing: each gets a dot. */
function alone(x, y, colour) {
  const stands = y.map((v) => v !== null);
  const lonely = stands.map((here, i) => here && !stands[i - 1] && !stands[i + 1]);
  if (!lonely.some(Boolean)) return null;
  const only = (list) => list.filter((_, i) => lonely[i]);
  return { x: only(x), y: only(y), mode: "markers", marker: { color: colour, size: 6 }, hoverinfo: "none", type: "scatter" };
}

function band(buckets, x, colour, fits) {
  if (!buckets.some((b) => b.n > 1)) return [];
  const edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", type: "scatter", connectgaps: false };
  return [
    { ...edge, y: buckets.map((b) => fits(b.min)) },
    { ...edge, y: buckets.map((b) => (fits(b.min) === null ? null : b.max)), fill: "tonexty", fillcolor: `${colour}26` },
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
