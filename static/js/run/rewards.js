// The Rewards tab: every component over the steps, what each adds to the total, and the groups that teach nothing.
import { carried, read } from "./api.js";
import { h } from "./dom.js";
import { MAX_BUCKETS, Series } from "./series.js";
import { figure, react } from "../plots.js";
import { startReweigh } from "./reweigh.js";
import { number, percent } from "./words.js";

const COMPONENT = /^reward\/([^/]+)\/mean$/;
const DRAW_MS = 500;

export function start(stream, context) {
  const tab = new Rewards(document.querySelector("[data-rewards]"), context);
  stream.addEventListener("event", ({ detail }) => {
    if (detail.kind === "scalars") tab.take(detail);
  });
  const stored = document.querySelector("[data-reweigh]");
  if (stored) startReweigh(stored, context, carried("component-colours"));
  return tab.load();
}

class Rewards {
  constructor(root, context) {
    this.root = root;
    this.url = context.urls.metrics;
    this.weights = context.weights ?? {};
    this.colours = carried("component-colours");
    this.names = new Set(context.series.filter((name) => name.startsWith("reward/")));
    this.series = new Map();
    this.waiting = [];
    document.addEventListener("visibilitychange", () => this.soon());
  }

  async load() {
    if (!this.names.size) return this.soon();
    this.loading = true;
    try {
      const answer = await read(this.url, { names: [...this.names].join(","), buckets: MAX_BUCKETS });
      for (const found of answer.series) this.keep(found, answer.last_event_id ?? 0);
      this.waiting = [];
    } catch (error) {
      this.say(error.message);
    }
    this.loading = false;
    this.soon();
  }

  keep(found, lastEventId) {
    const series = this.series.get(found.name) ?? new Series(found.name);
    series.load(found, lastEventId, this.waiting);
    this.series.set(found.name, series);
  }

  take(event) {
    const fresh = Object.keys(event.payload.values ?? {}).filter((name) => name.startsWith("reward/"));
    if (this.loading) this.waiting.push(event);
    else {
      const unknown = fresh.filter((name) => !this.series.has(name));
      const back = fresh.some((name) => this.series.get(name)?.append(event) === "again");
      for (const name of unknown) this.names.add(name);
      if (unknown.length || back) this.load();
      else this.soon();
    }
  }

  soon() {
    if (this.timer || document.hidden) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.draw();
    }, DRAW_MS);
    if (!this.drawn) {
      this.drawn = true;
      this.draw();
    }
  }

  say(text) {
    const note = this.root.querySelector("[data-note]");
    note.textContent = text;
    note.hidden = !text;
  }

  components() {
    return [...this.series.values()].map((series) => ({ series, name: COMPONENT.exec(series.name)?.[1] }))
      .filter(({ series, name }) => name && series.buckets.length)
      .sort((a, b) => (this.weights[b.name] ?? 0) - (this.weights[a.name] ?? 0) || a.name.localeCompare(b.name));
  }

  draw() {
    const components = this.components();
    this.say(this.series.size ? "" : "No reward has been measured yet. Phases without rewards, such as a cold start, have none.");
    this.root.querySelector("[data-plots]").hidden = !this.series.size;
    if (!this.series.size) return;
    this.plot("components", components.map(({ series, name }) => this.line(series, name)), { range: [0, 1], title: "mean score", legend: true });
    this.plot("shares", components.map(({ series, name }) => this.area(series, name)), { title: "weight × mean score" });
    this.plot("zero", this.one("reward/frac_zero_std_groups", "groups with equal rewards"), { range: [0, 1], title: "fraction of groups" });
    this.plot("total", this.one("reward/total", "weighted reward"), { title: "weighted reward" });
    this.table(components);
  }

  plot(key, traces, { range, title, legend = false }) {
    const place = this.root.querySelector(`[data-plot=${key}]`);
    place.closest("[data-card]").hidden = !traces.length;
    if (!traces.length) return;
    react(place, traces, figure({
      xaxis: { title: { text: "step" } }, yaxis: { title: { text: title }, ...(range ? { range } : { rangemode: "tozero" }) },
      hovermode: "x unified", showlegend: legend, meta: { label: place.getAttribute("aria-label") },
    }));
  }

  line(series, name) {
    const words = name.replaceAll("_", " ");
    return { name: words, type: "scatter", mode: mode(series), x: series.buckets.map((b) => b.step), y: series.buckets.map((b) => b.last),
      line: { color: this.colours[name], width: 1.8 }, marker: { color: this.colours[name], size: 5 }, hovertemplate: `${words} %{y:.3f}<extra></extra>` };
  }

  area(series, name) {
    const weight = this.weights[name] ?? 1;
    return { ...this.line(series, name), y: series.buckets.map((b) => (b.last === null ? null : b.last * weight)),
      stackgroup: "reward", mode: "lines", line: { width: 0.5, color: this.colours[name] } };
  }

  one(name, words) {
    const series = this.series.get(name);
    if (!series?.buckets.length) return [];
    return [{ type: "scatter", mode: mode(series), x: series.buckets.map((b) => b.step), y: series.buckets.map((b) => b.last),
      name: words, line: { color: this.colours[""], width: 1.8 }, marker: { size: 5, color: this.colours[""] }, hovertemplate: `${words} %{y:.3f}<extra></extra>` }];
  }

  table(components) {
    const gives = (c) => (this.weights[c.name] ?? 1) * (c.series.buckets.at(-1).last ?? 0);
    const total = components.reduce((sum, c) => sum + gives(c), 0);
    this.root.querySelector("[data-rows]").replaceChildren(...components.map((c) => {
      const newest = c.series.buckets.at(-1).last;
      return h("tr", {}, h("td", {}, h("i.swatch", { style: { background: this.colours[c.name] ?? "var(--muted)" } }), c.name.replaceAll("_", " ")),
        h("td.num", {}, number(this.weights[c.name] ?? null)), h("td.num", {}, number(newest)),
        h("td.num", {}, number(gives(c))), h("td.num", {}, total ? percent(gives(c) / total) : "–"));
    }));
  }
}

function mode(series) {
  return series.buckets.length === 1 ? "markers" : "lines";
}
