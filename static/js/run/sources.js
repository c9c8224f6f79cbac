// Where the lines of charts come from: one run, or several side by side. Both make a chart's lines and read their columns.
import { read } from "./api.js";
import { MAX_BUCKETS, Series } from "./series.js";

const MOST_SERIES = 10; // of one request: the server shares 10,000 buckets among them
const LEAN = ["x", "last", "min", "max", "n", "nonfinite"];
const COLUMN_OF = { step: null, time: "time", tokens: "tokens", process: "process_seconds" };

export class OneRun {
  constructor(url, colour, title) {
    Object.assign(this, { url, colour, title, readsOneAxis: false });
  }

  lines(name) {
    return [{ key: "", label: "", colour: this.colour, series: new Series(name) }];
  }

  async read(names, [from, to]) {
    const answer = await read(this.url, { names: names.join(","), from, to, buckets: MAX_BUCKETS });
    const found = new Map(answer.series.map((series) => [series.name, series]));
    return { last: answer.last_event_id ?? 0, columns: (name) => found.get(name) ?? {} };
  }
}

/** `runs` are {id, label, colour, dash}. Only the columns of the axis in force are read: with many runs the rest would be most. */
export class ManyRuns {
  constructor(url, runs, title) {
    Object.assign(this, { url, runs, title, readsOneAxis: true });
  }

  lines(name) {
    return this.runs.map(({ id, label, colour, dash }) => ({ key: String(id), label, colour, dash, series: new Series(name) }));
  }

  async read(names, range, axis) {
    const size = Math.max(1, Math.floor(MOST_SERIES / this.runs.length));
    const parts = Array.from({ length: Math.ceil(names.length / size) }, (_, i) => names.slice(i * size, (i + 1) * size));
    const answers = await Promise.all(parts.map((part) => this.part(part, range, axis)));
    const found = new Map();
    for (const { run, series } of answers.flatMap((answer) => answer.runs)) for (const one of series) found.set(`${run} ${one.name}`, one);
    return { last: 0, columns: (name, key) => found.get(`${key} ${name}`) ?? {} };
  }

  part(names, [from, to], axis) {
    const columns = [...LEAN, COLUMN_OF[axis.key]].filter(Boolean).join(",");
    return read(this.url, { runs: this.runs.map(({ id }) => id).join(","), names: names.join(","), from, to, buckets: MAX_BUCKETS, columns });
  }
}
