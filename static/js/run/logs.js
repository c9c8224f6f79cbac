// The Logs tab: the newest part of the output first, followed while it grows, older parts when asked; a search or a rank asks
// the server for the lines of the whole log.
import { read } from "./api.js";
import { h } from "./dom.js";

const POLL_MS = 1500;
const SEARCH_POLL_MS = 5000;
const TYPING_MS = 250;
const MAX_LINES = 5000;
const FIELDS = ["attempt", "rank", "q"];

export function start(stream, context) {
  const root = document.querySelector("[data-logs]");
  return root.querySelector("form") ? new Logs(root, context).follow() : null;
}

class Logs {
  constructor(root, context) {
    Object.assign(this, { root, urls: context.urls, offset: null, first: 0, lines: [], rest: "" });
    this.pane = root.querySelector("[data-pane]");
    this.form = root.querySelector("form");
    this.note = root.querySelector("[data-note]");
    this.older = root.querySelector("[data-older]");
    const given = new URLSearchParams(location.search);
    for (const name of FIELDS) if (given.get(name) && this.form.elements[name]) this.form.elements[name].value = given.get(name);
    this.form.addEventListener("submit", (e) => e.preventDefault());
    for (const name of FIELDS) this.form.elements[name]?.addEventListener("input", () => this.changed(name));
    this.older.addEventListener("click", () => this.before());
    this.pane.addEventListener("scroll", () => this.atEnd());
    document.addEventListener("visibilitychange", () => document.hidden || this.follow());
    this.links();
  }

  get asked() {
    return Object.fromEntries(FIELDS.map((name) => [name, this.form.elements[name]?.value ?? ""]));
  }

  get searching() {
    return Boolean(this.asked.q || this.asked.rank);
  }

  atEnd() {
    this.bottom = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight < 24;
    this.root.querySelector("[data-following]").textContent = this.searching ? "" : this.bottom ? "following" : "scroll to the end to follow";
    return this.bottom;
  }

  changed(name) {
    if (name === "attempt") Object.assign(this, { offset: null, lines: [], rest: "", bottom: true });
    this.links();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.follow(), name === "q" ? TYPING_MS : 0);
  }

  /** The view is in the address, and the download is of the attempt that is shown. */
  links() {
    const url = new URL(location.href);
    for (const [name, value] of Object.entries(this.asked)) {
      if (value && (name !== "attempt" || this.form.elements.attempt.selectedIndex > 0)) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    history.replaceState(history.state, "", url);
    const link = this.root.querySelector("[data-download]");
    link.href = `${this.urls.log_download}?attempt=${this.asked.attempt}`;
  }

  async follow() {
    clearTimeout(this.timer);
    const { searching } = this;
    try {
      if (searching) await this.search();
      else this.take(await read(this.urls.log, { attempt: this.asked.attempt, offset: this.offset }));
    } catch (error) {
      this.say(error.message);
    }
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.follow(), searching ? SEARCH_POLL_MS : POLL_MS);
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  async search() {
    const { asked } = this;
    const answer = await read(this.urls.log_search, asked);
    if (JSON.stringify(asked) !== JSON.stringify(this.asked)) return;
    const part = answer.num_searched < answer.size ? ` in the newest ${Math.round(answer.num_searched / 2 ** 20)} MiB` : "";
    const shown = answer.lines.length < answer.num_found ? `, the newest ${answer.lines.length} are shown` : "";
    this.count(`${answer.num_found} lines${part}${shown}`);
    this.say(answer.num_found ? "" : "No line of this log fits.");
    this.older.hidden = true;
    this.draw(answer.lines.map((line) => line.text), asked.q);
  }

  take(answer) {
    if (this.offset === null) this.first = answer.offset;
    this.offset = answer.next_offset;
    if (answer.text || !this.drawn) {
      const lines = (this.rest + answer.text).split("\n");
      this.rest = lines.pop();
      this.lines.push(...lines);
      if (this.bottom ?? true) this.lines.splice(0, Math.max(this.lines.length - MAX_LINES, 0));
    }
    this.show();
  }

  /** The lines before the first one that is shown; the view stays where it is. */
  async before() {
    const answer = await read(this.urls.log, { attempt: this.asked.attempt, before: this.first });
    this.lines.unshift(...answer.text.replace(/\n$/, "").split("\n"));
    this.first = answer.offset;
    this.bottom = false;
    const height = this.pane.scrollHeight;
    this.show();
    this.pane.scrollTop += this.pane.scrollHeight - height;
  }

  show() {
    const all = this.rest ? [...this.lines, this.rest] : this.lines;
    this.say(all.length ? "" : "Nothing has been written yet.");
    this.older.hidden = this.first === 0;
    this.count(`${all.length} lines`);
    this.draw(all, "");
  }

  count(text) {
    this.root.querySelector("[data-count]").textContent = text;
  }

  draw(lines, text) {
    const key = `${text}\n${lines.length}\n${lines.at(-1) ?? ""}\n${lines[0] ?? ""}`;
    if (key === this.drawn) return;
    this.drawn = key;
    const follow = this.bottom ?? true;
    this.pane.replaceChildren(...lines.map((line) => h(`div.log-line${tone(line)}`, {}, ...marked(line, text))));
    if (follow) this.pane.scrollTop = this.pane.scrollHeight;
    this.atEnd();
  }
}

/** The line with what was searched for marked in it. */
function marked(line, text) {
  if (!text) return [line || " "];
  const found = [];
  const lower = line.toLowerCase();
  let from = 0;
  for (let at = lower.indexOf(text.toLowerCase()); at >= 0; at = lower.indexOf(text.toLowerCase(), from)) {
    found.push(line.slice(from, at), h("mark", {}, line.slice(at, at + text.length)));
    from = at + text.length;
  }
  return [...found, line.slice(from)];
}

function tone(line) {
  if (/\b(error|traceback|exception|fatal)\b/i.test(line)) return ".log-error";
  return /\bwarn(ing)?\b/i.test(line) ? ".log-warning" : "";
}
