// What a chart is made of, for one line of it: the band of extremes, the raw line faint, the smoothed line, points that stand
// alone, marks for what is no number and for what lies outside the drawn range. Nothing here fetches or listens.
import { twema } from "./smoothing.js";

const OUTSIDE = "#d55e00";
const MOST_BANDS = 8; // of more lines the bands and the raw lines would hide each other
const FAINT = 0.25;
const EDGES = [0.02, 0.98];
const MARGIN = 0.15;

/** The traces of a line, and its numbers as the cursor reads them: places `xs` and `smoothed` values. */
export function lineTraces(line, buckets, view, { count, limits }) {
  const { values, axis } = view;
  const [x, colour] = [buckets.map(axis.of), line.colour];
  const xs = x.map(Number);
  const fits = (y) => (values.logy && !(y > 0) ? null : y); // Plotly would draw a line down to nowhere
  const all = buckets.map((b) => b.last);
  const smoothed = twema(xs, all, values.smooth);
  const raw = all.map(fits);
  const many = count > MOST_BANDS;
  const isSmooth = values.smooth > 0;
  const traces = [
    ...(many ? [] : band(buckets, x, colour, fits)),
    ...(many && isSmooth ? [] : [stroke(x, raw, line, { width: 1, opacity: isSmooth ? FAINT : 1 })]),
    stroke(x, isSmooth ? smoothed.map(fits) : raw, line, { width: many ? 1.2 : 1.8 }),
    alone(x, raw, colour),
    crosses(buckets, x, values.logy, line.label),
    ...(limits ? ["high", "low"].map((side) => outside(buckets, x, limits, side, line.label)) : []),
  ].filter(Boolean);
  return { traces, xs, smoothed };
}

/** The range of values that most of the buckets keep to, or null where nothing lies outside: {low, high}. */
export function limitsOf(lists, { values }) {
  const buckets = lists.flat();
  const sorted = buckets.map((b) => b.last).filter((y) => y !== null && (!values.logy || y > 0)).sort((a, b) => a - b);
  if (sorted.length < 20) return null;
  const [from, to] = EDGES.map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  const [scale, back] = values.logy ? [Math.log10, (v) => 10 ** v] : [Number, Number];
  const margin = (scale(to) - scale(from)) * MARGIN;
  if (!(margin > 0)) return null;
  const limits = { low: back(scale(from) - margin), high: back(scale(to) + margin) };
  const beyond = buckets.some((b) => b.min !== null && (b.max > limits.high || (b.min < limits.low && (!values.logy || b.min > 0))));
  return beyond ? limits : null;
}

function stroke(x, y, line, { width, opacity = 1 }) {
  return { x, y, mode: "lines", line: { color: line.colour, width, dash: line.dash ?? "solid" }, opacity, connectgaps: false,
    hoverinfo: "none", type: "scatter" };
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
function crosses(buckets, x, logy, label) {
  const what = buckets.map((b) => wrong(b, logy));
  if (!what.some(Boolean)) return null;
  const floor = buckets.reduce((low, b) => (b.min !== null && (!logy || b.min > 0) ? Math.min(low, b.min) : low), Infinity);
  const foot = Number.isFinite(floor) ? floor : logy ? 1 : 0;
  return points(x, what.map((words) => words && `${label ? `${label}, ` : ""}${words}`), () => foot, { symbol: "x-thin", size: 8, line: { width: 2, color: OUTSIDE } });
}

function wrong(bucket, logy) {
  if (bucket.nonfinite) return `step ${bucket.step}: ${bucket.nonfinite} of ${bucket.n} values are not numbers`;
  if (logy && bucket.min !== null && bucket.min <= 0) return `step ${bucket.step}: ${bucket.min} has no place on a log axis`;
  return "";
}

/** Arrows at the edge of the drawn range where a value lies beyond it: left out of the scale, and not hidden. */
function outside(buckets, x, { low, high }, side, label) {
  const value = (b) => (side === "high" ? b.max : b.min);
  const beyond = (b) => b.min !== null && (side === "high" ? b.max > high : b.min < low);
  const what = buckets.map((b) => (beyond(b) ? `${label ? `${label}, ` : ""}step ${b.step}: ${value(b)} is outside the drawn range` : ""));
  if (!what.some(Boolean)) return null;
  return points(x, what, () => (side === "high" ? high : low), { symbol: side === "high" ? "triangle-up" : "triangle-down", size: 8, color: OUTSIDE });
}

function points(x, what, place, marker) {
  const here = what.map(Boolean);
  const text = what.filter(Boolean);
  return { x: x.filter((_, i) => here[i]), y: text.map(place), text, type: "scatter", mode: "markers", marker, hoverinfo: "text", cliponaxis: false };
}
