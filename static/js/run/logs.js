// The Logs tab: the newest part of the output first, following it while it grows, with search in what is loaded.
import { read } from "./api.js";
import { h } from "./dom.js";

const POLL_MS = 1500;
const MAX_LINES = 5000;

export function start(stream, context) {
  const root = document.querySelector("[data-logs]");
  return root.querySelector("form") ? new Logs(root, context).follow() : null;
}

class Logs {
  constructor(root, context) {
    this.root = root;
    this.url = context.urls.log;
    this.live = context.live;
    this.pane = root.querySelector("[data-pane]");
    this.form = root.querySelector("form");
    this.note = root.querySelector("[data-note]");
    this.offset = null;
    this.lines = [];
    this.rest = "";
    this.form.addEventListener("submit", (e) => e.preventDefault());
    this.form.elements.q.addEventListener("input", () => this.show());
    this.form.elements.attempt?.addEventListener("change", () => this.restart());
    this.pane.addEventListener("scroll", () => this.atEnd());
    document.addEventListener("visibilitychange", () => document.hidden || this.follow());
  }

  atEnd() {
    this.bottom = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight < 24;
    this.root.querySelector("[data-following]").textContent = this.bottom ? "following" : "scroll to the end to follow";
    return this.bottom;
  }

  restart() {
    this.offset = null;
    this.lines = [];
    this.rest = "";
    this.bottom = true;
    this.follow();
  }

  async follow() {
    clearTimeout(this.timer);
    try {
      const answer = await read(this.url, { attempt: this.form.elements.attempt?.value, offset: this.offset });
      this.take(answer);
      this.note.hidden = this.lines.length > 0;
      this.note.textContent = "Nothing has been written yet.";
    } catch (error) {
      this.note.hidden = false;
      this.note.textContent = error.message;
    }
    if (!document.hidden) this.timer = setTimeout(() => this.follow(), POLL_MS);
  }

  take(answer) {
    const text = answer.text ?? "";
    this.offset = answer.next_offset ?? answer.offset ?? this.offset;
    if (!text) return;
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    this.lines.push(...lines);
    this.lines.splice(0, Math.max(this.lines.length - MAX_LINES, 0));
    this.show();
  }

  show() {
    const wanted = this.form.elements.q.value.toLowerCase();
    const all = this.rest ? [...this.lines, this.rest] : this.lines;
    const shown = wanted ? all.filter((line) => line.toLowerCase().includes(wanted)) : all;
    const follow = this.bottom ?? true;
    this.pane.replaceChildren(...shown.map((line) => h(`div.log-line${tone(line)}`, {}, line || " ")));
    this.root.querySelector("[data-count]").textContent = wanted ? `${shown.length} of ${all.length} lines` : `${all.length} lines`;
    if (follow) this.pane.scrollTop = this.pane.scrollHeight;
    this.atEnd();
  }
}

function tone(line) {
  if (/\b(error|traceback|exception|fatal)\b/i.test(line)) return ".log-error";
  return /\bwarn(ing)?\b/i.test(line) ? ".log-warning" : "";
}
