// A server-rendered table that stays true: `[data-live-filters]` changes it without leaving the page, and events of
// the overview socket fetch it again, at most once in a second and a half, not while the tab is hidden.
import { Follower } from "../playground/follower.js";

const REFRESH_MS = 1500;
const TYPING_MS = 250;

export class LiveTable {
  constructor({ kinds }) {
    this.place = document.querySelector("[data-live-table]");
    this.form = document.querySelector("[data-live-filters]");
    this.form?.addEventListener("input", () => this.filtered());
    this.form?.addEventListener("submit", (e) => {
      e.preventDefault();
      this.filtered();
    });
    document.addEventListener("visibilitychange", () => this.dirty && this.soon());
    this.follower = new Follower("/ws/overview/");
    this.follower.addEventListener("message", ({ detail }) => kinds.has(detail.type) && this.soon());
    this.follower.open();
  }

  filtered() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      const values = [...new FormData(this.form)].filter(([, value]) => value);
      history.replaceState(history.state, "", `${location.pathname}?${new URLSearchParams(values)}`);
      this.fetch();
    }, TYPING_MS);
  }

  soon() {
    this.dirty = true;
    if (this.timer || document.hidden) return;
    const wait = Math.max(0, (this.last ?? 0) + REFRESH_MS - Date.now());
    this.timer = setTimeout(() => {
      this.timer = null;
      this.fetch();
    }, wait);
  }

  async fetch() {
    this.last = Date.now();
    this.dirty = false;
    const asked = location.href;
    try {
      const answer = await fetch(asked, { headers: { "X-Part": "table" }, credentials: "same-origin" });
      if (!answer.ok || asked !== location.href) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!this.place.contains(document.activeElement) || document.activeElement === document.body) {
        this.place.replaceChildren(...fresh.body.childNodes);
      }
    } catch {
      this.dirty = true; // the next event tries again
    }
  }
}
