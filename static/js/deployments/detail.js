// The log of the replica that is picked, followed while it grows. The rest of the page keeps itself fresh.
import { read } from "../run/api.js";
import { h } from "../run/dom.js";

const POLL_MS = 1500;
const MAX_LINES = 2000;

class Log {
  constructor(root) {
    this.pane = root.querySelector("[data-pane]");
    this.pick = root.querySelector("select");
    this.pick.addEventListener("change", () => this.restart());
    this.restart();
  }

  restart() {
    Object.assign(this, { offset: null, rest: "", lines: [] });
    clearTimeout(this.timer);
    this.follow(this.pick.value);
  }

  async follow(url) {
    try {
      const answer = await read(url, { offset: this.offset });
      if (url !== this.pick.value) return;
      this.offset = answer.next_offset ?? this.offset;
      this.add(answer.text ?? "");
    } catch (error) {
      if (!this.lines.length) this.pane.replaceChildren(h("div.log-line.muted", {}, error.message));
    }
    this.timer = setTimeout(() => this.follow(url), document.hidden ? POLL_MS * 10 : POLL_MS);
  }

  add(text) {
    if (!text && this.lines.length) return;
    const atEnd = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight < 24;
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    this.lines = [...this.lines, ...lines].slice(-MAX_LINES);
    const shown = this.rest ? [...this.lines, this.rest] : this.lines;
    const words = shown.length ? shown : ["The engine has written nothing yet."];
    this.pane.replaceChildren(...words.map((line) => h("div.log-line", {}, line || " ")));
    if (atEnd) this.pane.scrollTop = this.pane.scrollHeight;
  }
}

/** The badge of the connection stands only while something can change. */
addEventListener("r1:swapped", () => {
  document.querySelector("[data-moves]").hidden = document.querySelector("[data-part=state] .state-stopped") !== null;
});

for (const root of document.querySelectorAll("[data-log]")) if (root.querySelector("select")) new Log(root);
