// The grid of charts: which are in view, what must be fetched, and when to draw. A chart outside the view or a
// hidden tab costs nothing; what changed meanwhile is drawn on return.
import { ApiError } from "./api.js";
import { Panel } from "./panel.js";
import { stepRange } from "./series.js";

const GATHER_MS = 40; // charts that ask within this time share a request
const MIN_GAP_MS = 100;
const MAX_GAP_MS = 200;
const COST_FACTOR = 4; // drawing takes at most about a fifth of the time

export class Board {
  /** `source` makes the lines of a chart and reads them; see sources.js. */
  constructor({ root, view, source, describe }) {
    Object.assign(this, { root, view, source, describe });
    this.panels = new Map();
    this.asked = new Set();
    this.waiting = []; // scalars events while answers are on their way
    this.newest = 0;
    this.gap = MIN_GAP_MS;
    this.lastDraw = 0;
    this.seen = new IntersectionObserver((entries) => this.looked(entries), { rootMargin: "200px" });
    document.addEventListener("visibilitychange", () => this.schedule());
    view.addEventListener("change", ({ detail }) => this.changed(detail.changed));
    root.addEventListener("cursor", ({ detail }) => this.cursor(detail.x));
    new ResizeObserver(() => this.resized()).observe(root);
  }

  add(name, element) {
    const panel = new Panel(element, name, this.source.lines(name), this.view, this.describe(name));
    this.panels.set(name, panel);
    this.seen.observe(element);
    return panel;
  }

  looked(entries) {
    for (const { target, isIntersecting } of entries) {
      const panel = this.panels.get(target.dataset.name);
      panel.visible = isIntersecting;
      if (isIntersecting && !panel.loaded) this.ask([panel]);
    }
    this.schedule();
  }

  changed(keys) {
    for (const panel of this.panels.values()) panel.stale = true;
    if (keys.has("x") && this.view.zoomed) this.view.set({ from: null, to: null });
    if (keys.has("from") || keys.has("to") || (keys.has("x") && this.source.readsOneAxis)) this.again();
    this.schedule(true);
  }

  /** Reads anew what is in view, and the rest when it comes into view. */
  again() {
    this.ask([...this.panels.values()].filter((p) => p.visible), true);
  }

  /** Fetches the range in view for some panels, all that ask within a moment in one request. */
  ask(panels, again = false) {
    const forget = (panel) => panel.lines.forEach(({ series }) => (series.loaded = false));
    for (const panel of panels) {
      if (again) forget(panel);
      this.asked.add(panel);
    }
    if (again) for (const panel of this.panels.values()) if (!panel.visible) forget(panel);
    clearTimeout(this.gathering);
    this.gathering = setTimeout(() => this.fetch(), GATHER_MS);
  }

  async fetch() {
    const panels = [...this.asked];
    this.asked.clear();
    if (!panels.length) return;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    for (const panel of panels) panel.turn = turn;
    const { zoomed } = this.view;
    try {
      if (zoomed) await this.survey(panels.filter((p) => p.lines.some(({ series }) => !series.overview && !series.buckets.length)));
      const range = this.steps(panels);
      const found = await this.source.read(panels.map((p) => p.name), range, this.view.axis);
      this.answered(panels.filter((p) => p.turn === turn), found, zoomed ? range : null);
    } catch (error) {
      this.failed(panels, error);
    }
    this.schedule(true);
  }

  async survey(panels) {
    if (!panels.length) return;
    const found = await this.source.read(panels.map((p) => p.name), [null, null], this.view.axis);
    for (const { name, lines } of panels) for (const { key, series } of lines) series.survey(found.columns(name, key));
  }

  answered(panels, found, range) {
    const back = [];
    for (const panel of panels) {
      for (const { key, series } of panel.lines) {
        const columns = found.columns(panel.name, key);
        if (range) series.loadWindow(columns, found.last, range);
        else if (!series.load(columns, found.last, this.waiting)) back.push(panel);
      }
      panel.stale = true;
    }
    if ([...this.panels.values()].every((p) => p.loaded || !p.visible)) this.waiting.splice(0, this.waiting.length - 200);
    if (back.length) setTimeout(() => this.ask(back, true), 1000);
  }

  failed(panels, error) {
    const why = error instanceof ApiError ? error.message : "The server cannot be reached; trying again.";
    for (const panel of panels) panel.note.textContent = why;
    if (!(error instanceof ApiError)) setTimeout(() => this.ask(panels), 3000);
  }

  /** The range of the view in steps, which is what the server counts in. */
  steps(panels) {
    const { values, axis } = this.view;
    if (!this.view.zoomed) return [null, null];
    if (values.x === "step") return [Math.floor(values.from), Math.ceil(values.to)];
    const ranges = panels.flatMap((p) => p.lines.map(({ series }) => series.overview ?? series.buckets)).filter((list) => list.length)
      .map((list) => stepRange(list, axis.key, values.from, values.to));
    if (!ranges.length) return [null, null];
    const lows = ranges.map(([low]) => low ?? 0);
    return [Math.min(...lows), ranges.some(([, high]) => high === null) ? null : Math.max(...ranges.map(([, high]) => high))];
  }

  /** Takes a `scalars` event from the socket. */
  take(event) {
    this.waiting.push(event);
    if (this.waiting.length > 5000) this.waiting.shift();
    this.newest = Math.max(this.newest, event.seq);
    if (this.view.zoomed) return;
    for (const name of Object.keys(event.payload.values ?? {})) {
      const panel = this.panels.get(name);
      if (!panel) this.dispatch("new-series", name);
      else if (panel.loaded) this.append(panel, event);
    }
    this.schedule();
  }

  append(panel, event) {
    const outcome = panel.lines[0].series.append(event);
    if (outcome === "added") {
      panel.stale = true;
      panel.appliedSeq = event.seq;
    } else if (outcome === "again") this.ask([panel], true);
  }

  dispatch(type, detail) {
    this.root.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Draws soon: at once after a pause, else when the last drawing has been paid for. */
  schedule(now = false) {
    if (this.drawing || document.hidden) return;
    const wait = now ? 0 : Math.max(0, this.lastDraw + this.gap - performance.now());
    if (this.timer && !now) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.draw(), wait);
  }

  async draw() {
    this.timer = null;
    const due = [...this.panels.values()].filter((p) => p.visible && p.stale);
    if (!due.length || document.hidden) return;
    this.drawing = true;
    const [start, seq] = [performance.now(), Math.max(0, ...due.map((p) => p.appliedSeq))];
    for (const panel of due) await panel.draw();
    this.lastDraw = performance.now();
    this.gap = Math.min(MAX_GAP_MS, Math.max(MIN_GAP_MS, (this.lastDraw - start) * COST_FACTOR));
    this.drawing = false;
    if (seq) this.note(seq);
    this.schedule();
  }

  /** Leaves a mark that a measurement can read: the attempt's seq of the newest event that is on the screen. */
  note(seq) {
    document.documentElement.dataset.lastDrawnSeq = seq;
    performance.clearMarks("r1-drawn");
    performance.mark("r1-drawn", { detail: { seq } });
  }

  cursor(x) {
    this.cursorAt = x;
    if (this.pointing) return;
    this.pointing = requestAnimationFrame(() => {
      this.pointing = null;
      for (const panel of this.panels.values()) if (panel.visible) panel.point(this.cursorAt);
    });
  }

  resized() {
    clearTimeout(this.resizing);
    this.resizing = setTimeout(() => {
      for (const panel of this.panels.values()) if (panel.visible) panel.resize();
    }, 150);
  }
}
