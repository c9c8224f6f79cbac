// One chart: fetches nothing, decides nothing about time; draws the buckets of its lines as the view asks. Most charts have one
// line; where runs are compared each has one. What an axis cannot show is said in words under the chart.
import { below, crossed, logTicks, placed, unplaced, windowWords } from "./axis.js";
import { h } from "./dom.js";
import { figure, react, resize } from "../plots.js";
import { number } from "./words.js";
import { limitsOf, lineTraces } from "./traces.js";

const MOST_VALUES = 8;

export class Panel {
  /** `lines` are {series, colour, label, key}; `label` is empty where there is only one. */
  constructor(element, name, lines, view, words) {
    Object.assign(this, { element, name, lines, view, words });
    this.plot = element.querySelector("[data-plot]");
    this.readout = element.querySelector("[data-readout]");
    this.note = element.querySelector("[data-note]");
    this.visible = false;
    this.stale = true; // has data or settings that are not drawn
    this.drawn = false;
    this.appliedSeq = 0;
    this.shown = [];
  }

  get loaded() {
    return this.lines.every(({ series }) => series.loaded);
  }

  /** Draws what is there; answers when the picture stands. */
  async draw() {
    this.stale = false;
    const { hidden } = this.view;
    this.shown = this.lines.filter(({ key }) => !hidden.has(key)).map((line) => ({ line, buckets: placed(line.series.buckets, this.view) }));
    const why = this.nothing();
    this.note.hidden = !why;
    this.plot.hidden = Boolean(why);
    this.note.textContent = why;
    this.say(why ? "" : [unplaced(this.buckets(), this.view), below(this.shown.flatMap((s) => s.buckets), this.view)].filter(Boolean).join(" "));
    if (why) return;
    const { traces, layout } = this.picture();
    await react(this.plot, traces, layout);
    if (!this.drawn) this.listen();
    this.drawn = true;
  }

  buckets() {
    return this.shown.flatMap(({ line }) => line.series.buckets);
  }

  /** Why there is nothing to draw; "" when there is. */
  nothing() {
    const { view, shown } = this;
    const all = this.buckets();
    if (!all.length && !this.loaded) return "Loading…";
    if (!shown.length) return "Every run is hidden; choose one above.";
    if (view.zoomed && !shown.some(({ buckets }) => crossed(buckets, view))) return windowWords(view);
    if (!all.length) return this.words.empty;
    return shown.some(({ buckets }) => buckets.length) ? "" : unplaced(all, view);
  }

  /** A sentence under the chart, for what it leaves out. */
  say(sentence) {
    if (!this.aside && !sentence) return;
    this.aside ??= this.element.appendChild(h("p.muted.plot-aside", { "data-aside": "", role: "note" }));
    this.aside.textContent = sentence;
    this.aside.hidden = !sentence;
  }

  picture() {
    const limits = this.view.values.fit ? limitsOf(this.shown.map((s) => s.buckets), this.view) : null;
    const traces = [];
    for (const one of this.shown) {
      const made = lineTraces(one.line, one.buckets, this.view, { count: this.shown.length, limits });
      Object.assign(one, { xs: made.xs, smoothed: made.smoothed });
      traces.push(...made.traces);
    }
    return { traces, layout: this.layout(limits) };
  }

  layout(limits) {
    const { values, axis, logx } = this.view;
    const buckets = this.shown.flatMap((s) => s.buckets);
    const inView = this.view.zoomed ? [values.from, values.to] : buckets.map((b) => b[axis.key]);
    const heights = limits ? [limits.low, limits.high] : buckets.flatMap((b) => [b.last, b.min, b.max]);
    const range = this.view.zoomed ? { range: this.zoomRange(), autorange: false } : { autorange: true };
    const [low, high] = limits ? [limits.low, limits.high].map(values.logy ? Math.log10 : Number) : [];
    return figure({
      xaxis: { type: scale(this.view), title: { text: axis.title }, nticks: values.x === "time" ? 4 : 7, tickangle: 0, ...range,
        ...(logx ? logTicks(inView) : {}) },
      yaxis: { type: values.logy ? "log" : "linear", title: { text: this.unit() }, ...(values.logy ? logTicks(heights) : {}),
        ...(limits ? { range: [low, high], autorange: false } : { rangemode: buckets.every((b) => b.last === null || b.last >= 0) ? "nonnegative" : "normal" }) },
      meta: { label: [`${this.words.title} by ${axis.title}`, this.aside?.textContent].filter(Boolean).join(". ") },
    });
  }

  unit() {
    return this.lines.find(({ series }) => series.unit)?.series.unit ?? "";
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

  /** Shows what every line is at `x` (a place on the shared axis), and a hairline there. */
  point(x) {
    if (!this.drawn || this.plot.hidden) return;
    const alone = this.lines.length === 1;
    const reaches = ({ xs }) => xs?.length && (alone || (xs[0] <= x && x <= xs.at(-1)));
    const found = x === null ? [] : this.shown.filter(reaches).map((s) => at(s, x));
    if (alone) this.readout.textContent = found.length ? this.sentence(found[0]) : "";
    else this.list(found);
    const nearest = found.sort((a, b) => Math.abs(a.x - x) - Math.abs(b.x - x))[0];
    this.hairline(nearest?.x ?? null);
  }

  sentence({ bucket, smoothed }) {
    const also = this.view.values.smooth > 0 ? ` (${number(smoothed, 3)} smoothed)` : "";
    const many = bucket.n > 1 ? `, ${number(bucket.min, 3)} to ${number(bucket.max, 3)}` : "";
    return `step ${bucket.step}: ${number(bucket.last, 3)}${also}${many}`;
  }

  /** The lines at the cursor, highest first. */
  list(found) {
    this.values ??= this.plot.parentElement.appendChild(h("div.plot-values", { "data-values": "", role: "status" }));
    const shown = (one) => (this.view.values.smooth > 0 ? one.smoothed : one.bucket.last);
    const ranked = found.filter((one) => shown(one) !== null).sort((a, b) => shown(b) - shown(a));
    const rows = ranked.slice(0, MOST_VALUES).map((one) =>
      h("div", {}, h("i.swatch", { style: { background: one.line.colour } }), `${one.line.label} `, h("b", {}, number(shown(one), 4))));
    if (ranked.length > MOST_VALUES) rows.push(h("div.muted", {}, `and ${ranked.length - MOST_VALUES} below`));
    this.values.replaceChildren(...rows);
    this.values.hidden = !rows.length;
  }

  hairline(x) {
    this.hair ??= this.plot.parentElement.querySelector("[data-hairline]");
    const { xaxis } = this.plot._fullLayout ?? {};
    this.hair.hidden = x === null || !xaxis;
    if (this.hair.hidden) return;
    const left = xaxis.d2p(x);
    this.hair.hidden = left < 0 || left > xaxis._length; // a neighbour outside the window
    this.hair.style.left = `${xaxis._offset + left}px`;
  }

  resize() {
    if (this.drawn) resize(this.plot);
  }
}

/** A line's bucket next to `x`. */
function at({ line, buckets, xs, smoothed }, x) {
  const index = nearest(xs, x);
  return { line, bucket: buckets[index], smoothed: smoothed[index], x: xs[index] };
}

function scale(view) {
  if (view.values.x === "time") return "date";
  return view.logx ? "log" : "linear";
}

function plain(value) {
  return typeof value === "string" ? new Date(value.replace(" ", "T")).getTime() : value;
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
