// A deployment's page: its live part is fetched again when the socket speaks of it, or every few seconds while it moves
// or serves (engine metrics have no event); the log of the chosen replica is followed.
import { Follower } from "../playground/follower.js";
import { carried, read } from "../run/api.js";
import { h } from "../run/dom.js";

const REFRESH_MS = 1000;
const POLL_MS = 3000;
const LOG_MS = 1500;
const MAX_LINES = 2000;

class Live {
  constructor(root, context) {
    Object.assign(this, { root, context });
    this.follower = new Follower("/ws/overview/");
    this.follower.addEventListener("message", ({ detail }) => {
      const id = detail.deployment ?? detail.deployment_id ?? detail.id;
      if (["deployment", "replica"].includes(detail.type) && Number(id) === context.deployment) this.soon();
    });
    this.follower.addEventListener("status", ({ detail }) => this.badge(detail.status));
    this.follower.open();
    setInterval(() => document.hidden || this.soon(), POLL_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.soon());
  }

  badge(status) {
    const element = document.querySelector("[data-live-badge]");
    element.dataset.status = status;
    element.querySelector("[data-live-word]").textContent = status;
  }

  soon() {
    if (this.timer) return;
    const wait = Math.max(0, (this.last ?? 0) + REFRESH_MS - Date.now());
    this.timer = setTimeout(async () => {
      this.last = Date.now();
      await this.fetch();
      this.timer = null;
    }, wait);
  }

  async fetch() {
    try {
      const answer = await fetch(this.root.dataset.url, { credentials: "same-origin" });
      if (answer.ok) this.swap(await answer.text());
    } catch {
      // the badge says that the connection is away
    }
  }

  swap(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const old = document.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!old || old.innerHTML === part.innerHTML || busy(old)) continue;
      old.replaceChildren(...part.childNodes);
    }
  }
}

function busy(part) {
  return part.contains(document.activeElement) || part.querySelector("dialog[open]") !== null;
}

class Log {
  constructor(root) {
    this.root = root;
    this.pane = root.querySelector("[data-pane]");
    this.pick = root.querySelector("select");
    this.pick?.addEventListener("change", () => this.restart());
    if (this.pick) this.restart();
  }

  restart() {
    this.offset = null;
    this.rest = "";
    this.lines = [];
    clearTimeout(this.timer);
    this.follow(this.pick.value);
  }

  async follow(url) {
    if (url !== this.pick.value) return;
    try {
      const answer = await read(url, { offset: this.offset });
      if (url !== this.pick.value) return;
      this.offset = answer.next_offset ?? answer.offset ?? this.offset;
      this.add(answer.text ?? "");
    } catch (error) {
      if (!this.lines.length) this.pane.replaceChildren(h("div.log-line.muted", {}, error.message));
    }
    this.timer = setTimeout(() => this.follow(url), document.hidden ? LOG_MS * 10 : LOG_MS);
  }

  add(text) {
    if (!text && this.lines.length) return;
    const atEnd = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight < 24;
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    this.lines = [...this.lines, ...lines].slice(-MAX_LINES);
    const shown = this.rest ? [...this.lines, this.rest] : this.lines;
    this.pane.replaceChildren(...(shown.length ? shown : ["The engine has written nothing yet."]).map((line) => h("div.log-line", {}, line || " ")));
    if (atEnd) this.pane.scrollTop = this.pane.scrollHeight;
  }
}

new Live(document.querySelector("[data-live]"), carried("deployment-context"));
for (const root of document.querySelectorAll("[data-log]")) new Log(root);
