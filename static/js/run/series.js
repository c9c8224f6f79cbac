// One metric as buckets {step, last, min, max, n, nonfinite, time, tokens, process}: what the server sent for the
// range in view, and what the socket added since. Extremes survive every merge; a bucket is never dropped.

export const MAX_BUCKETS = 1000;
const LISTS = ["x", "last", "min", "max", "n", "nonfinite", "time", "tokens", "process_seconds"];

/** Joins neighbours two by two; the last of each pair gives the value and the place. */
export function halve(buckets) {
  const out = [];
  for (let i = 0; i < buckets.length; i += 2) {
    const [a, b] = [buckets[i], buckets[i + 1]];
    out.push(b ? join(a, b) : a);
  }
  return out;
}

/** One bucket that holds `a` and the later `b`. */
export function join(a, b) {
  return {
    ...b,
    min: extreme(Math.min, a.min, b.min),
    max: extreme(Math.max, a.max, b.max),
    n: a.n + b.n,
    nonfinite: a.nonfinite + b.nonfinite,
  };
}

function extreme(choose, a, b) {
  if (a === null) return b;
  return b === null ? a : choose(a, b);
}

/** Number of a payload: a number as it is, "nan" and its kin as null. */
export function finite(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

export class Series {
  constructor(name) {
    this.name = name;
    this.unit = "";
    this.buckets = [];
    this.overview = null; // the whole line, while `buckets` holds a window of it
    this.lastEventId = 0;
    this.loaded = false;
  }

  /** Takes the server's answer for this series, then the events that came in while it was on its way. */
  load(answer, lastEventId, waiting = []) {
    this.buckets = read(answer);
    this.overview = null;
    this.unit = answer.unit ?? this.unit;
    this.lastEventId = lastEventId;
    this.loaded = true;
    let inOrder = true;
    for (const event of waiting) inOrder = this.append(event) !== "again" && inOrder;
    return inOrder;
  }

  /** Takes the whole line for its neighbours only: a page that opens zoomed has none yet. */
  survey(answer) {
    this.overview = read(answer);
  }

  /** Takes the server's answer for the steps of a zoom, with the neighbours that the line comes from and goes to. */
  loadWindow(answer, lastEventId, [from, to]) {
    this.overview ??= this.buckets;
    this.buckets = flanked(this.overview, read(answer), from, to);
    this.unit = answer.unit ?? this.unit;
    this.lastEventId = lastEventId;
    this.loaded = true;
  }

  /**
   * Adds one `scalars` event. Answers "added", "old" when it is in already or speaks of something else, and
   * "again" when it goes back to an earlier step (a resumed run): then only the server knows the line.
   */
  append(event) {
    const { payload } = event;
    if (event.id <= this.lastEventId || !(this.name in (payload.values ?? {}))) return "old";
    const newest = this.buckets[this.buckets.length - 1];
    if (newest && payload.step <= newest.step) return "again";
    const value = finite(payload.values[this.name]);
    this.buckets.push({
      step: payload.step, last: value, min: value, max: value, n: 1, nonfinite: value === null ? 1 : 0,
      time: seconds(event.time), tokens: payload.tokens ?? 0, process: payload.process_seconds ?? 0,
    });
    this.lastEventId = event.id;
    if (this.buckets.length > MAX_BUCKETS) this.buckets = halve(this.buckets);
    return "added";
  }
}

function read(answer) {
  const columns = LISTS.map((key) => answer[key] ?? []);
  return columns[0].map((step, i) => {
    const [, last, min, max, n, nonfinite, time, tokens, process] = columns.map((list) => list[i] ?? null);
    return { step, last: finite(last), min: finite(min), max: finite(max), n: n ?? 1, nonfinite: nonfinite ?? 0,
      time: time ?? 0, tokens: tokens ?? 0, process: process ?? 0 };
  });
}

/**
 * `inside`, the buckets from step `from` to `to`, with the point before and the point after them where `overview` knows
 * these exactly: next to a bucket of several points nobody knows which is the neighbour, and no line is invented.
 */
export function flanked(overview, inside, from, to) {
  const next = from === null ? -1 : overview.findIndex((b) => b.step >= from);
  const before = next > 0 && overview[next].n === 1 ? overview[next - 1] : null;
  const after = to === null ? null : overview.find((b) => b.step > to);
  return [
    ...(before && !(before.step >= inside[0]?.step) ? [before] : []),
    ...inside,
    ...(after && after.n === 1 && !(after.step <= inside.at(-1)?.step) ? [after] : []),
  ];
}

/** Seconds since the epoch of a number of seconds or an ISO time. */
export function seconds(time) {
  return typeof time === "number" ? time : Date.parse(time) / 1000;
}

/** Steps that cover the range [from, to] of axis `key` over `buckets`, one bucket wider on both sides. */
export function stepRange(buckets, key, from, to) {
  let [low, high] = [null, null];
  buckets.forEach((bucket, i) => {
    if (bucket[key] < from) low = buckets[i].step;
    if (bucket[key] > to && high === null) high = buckets[i].step;
  });
  return [low, high];
}
