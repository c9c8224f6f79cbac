// What an axis can show and what it cannot: readable ticks for logarithms, points without a place, windows in words.
import { number } from "./words.js";

const MOST_TICKS = 6;

/** The buckets that have a place on the x axis in force: a log axis begins above 0. */
export function placed(buckets, view) {
  return view.logx ? buckets.filter((b) => b[view.axis.key] > 0) : buckets;
}

/** "1 point at step 0 cannot be drawn on this axis.", or "" where all of them can. */
export function unplaced(buckets, view) {
  if (!view.logx || view.zoomed) return "";
  const count = buckets.reduce((sum, b) => sum + (b[view.axis.key] > 0 ? 0 : b.n), 0);
  return count ? `${number(count)} ${count === 1 ? "point" : "points"} at ${view.axis.noun} 0 cannot be drawn on this axis.` : "";
}

/** "3 points at 0 or below cannot be drawn (×).", or "": what a log axis of values leaves out. */
export function below(buckets, view) {
  const out = view.values.logy ? buckets.filter((b) => b.min !== null && b.min <= 0) : [];
  if (!out.length) return "";
  const words = out.some((b) => b.n > 1) ? "Points" : `${number(out.length)} ${out.length === 1 ? "point" : "points"}`;
  return `${words} at 0 or below cannot be drawn (×).`;
}

/** Whether a zoomed chart has something to show: a value in its window, or a line from one side to the other. */
export function crossed(buckets, view) {
  const { from, to } = view.values;
  const places = buckets.filter((b) => b.last !== null).map((b) => b[view.axis.key]);
  const inside = buckets.some((b) => b[view.axis.key] >= from && b[view.axis.key] <= to);
  return inside || (places.some((x) => x < from) && places.some((x) => x > to));
}

/** "No value between step 14 and 23." */
export function windowWords({ values, axis }) {
  const { from, to } = values;
  if (values.x === "time") return `No value between ${clock(from)} and ${clock(to)}.`;
  const [low, high] = values.x === "step" && Math.ceil(from) < Math.floor(to) ? [Math.ceil(from), Math.floor(to)] : [from, to];
  return `No value between ${axis.noun} ${number(low, 5)} and ${number(high, 5)}${values.x === "process" ? "\u202fs" : ""}.`;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

/** Ticks of a log axis over `values`: few, and each with its whole number rather than a lone digit. */
export function logTicks(values) {
  const positive = values.filter((v) => v > 0);
  if (!positive.length) return { tickmode: "array", tickvals: [], ticktext: [] };
  const [low, high] = [positive.reduce((a, b) => Math.min(a, b)), positive.reduce((a, b) => Math.max(a, b))];
  const decades = Math.log10(high / low);
  const tickvals = decades < 0.8 ? even(low, high) : decimal(low, high, decades <= 2 ? [1, 2, 5] : [1], Math.ceil(decades / MOST_TICKS));
  return { tickmode: "array", tickvals, ticktext: tickvals.map(tickWords) };
}

function even(low, high) {
  if (low === high) return [low];
  const rough = (high - low) / (MOST_TICKS - 1);
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = size * ([1, 2, 5].find((m) => m * size >= rough) ?? 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

function decimal(low, high, parts, stride) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += stride) {
    for (const part of parts) ticks.push(part * 10 ** power);
  }
  return ticks;
}

function tickWords(value) {
  if (value >= 1e-3 && value < 1e6) return number(value, 6);
  const power = Math.floor(Math.log10(value) + 1e-9);
  const part = Number((value / 10 ** power).toPrecision(3));
  return `${part === 1 ? "" : `${part}·`}10<sup>${String(power).replace("-", "−")}</sup>`;
}
