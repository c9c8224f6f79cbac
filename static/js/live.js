// What stays true by itself. `LiveSocket` is a socket that comes back: it asks again from the last id it has, drops
// what it has seen, waits longer each time, and says whether what you see is live. `startLiveParts` keeps the
// `[data-part]`s of a page as the server would render them now; the socket only says when to look.

const SILENCE_MS = 35_000; // the server pings every 15 s
const STALE_MS = 10_000;
const FINAL = { 4401: "signed out", 4403: "no access", 4404: "gone" };
const WORDS = {
  live: "Connected: changes appear as they happen.",
  reconnecting: "The connection was lost; trying again. Nothing is missed.",
  stale: "No connection for a while: what you see may be old.",
  "signed out": "You are signed out or your access ended. Reload the page to sign in.",
  "no access": "You are no member of this project any more.",
  gone: "This does not exist any more.",
};

export class LiveSocket extends EventTarget {
  constructor(path, { after = null, makeSocket = (url) => new WebSocket(url) } = {}) {
    super();
    Object.assign(this, { path, after, makeSocket, retries: 0, status: "connecting" });
  }

  open() {
    const url = new URL(this.path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.after !== null) url.searchParams.set("after", this.after);
    this.socket = this.makeSocket(url.href);
    this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    this.socket.onclose = ({ code }) => this.closed(code);
    return this;
  }

  receive(message) {
    this.heard();
    if (this.after !== null && message.type === "event") {
      if (message.id <= this.after) return;
      this.after = message.id;
    }
    if (message.type !== "ping") this.tell("message", message);
  }

  heard() {
    const again = this.retries > 0;
    this.retries = 0;
    clearTimeout(this.staleTimer);
    this.staleTimer = null;
    this.say("live");
    if (again) this.tell("again", {});
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket.close(), SILENCE_MS);
  }

  closed(code) {
    clearTimeout(this.silence);
    if (FINAL[code]) {
      this.say(FINAL[code]);
      return;
    }
    if (this.status !== "stale") this.say("reconnecting");
    this.staleTimer ??= setTimeout(() => this.say("stale"), STALE_MS);
    const wait = Math.min(250 * 2 ** this.retries, 5000) * (0.5 + Math.random() / 2);
    this.retries += 1;
    this.timer = setTimeout(() => this.open(), wait);
  }

  say(status) {
    if (status === this.status) return;
    this.status = status;
    this.tell("status", { status });
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  close() {
    for (const timer of [this.timer, this.silence, this.staleTimer]) clearTimeout(timer);
    if (!this.socket) return;
    this.socket.onclose = null;
    this.socket.close();
  }
}

/** Shows a socket's status in every `[data-live-badge]`. */
export function badge(status) {
  for (const element of document.querySelectorAll("[data-live-badge]")) {
    element.dataset.status = status;
    element.title = WORDS[status] ?? "";
    element.querySelector("[data-live-word]").textContent = status;
  }
}

const REFRESH_MS = 1000;
const POLL_MS = 5000;

/** Keeps the parts of the page inside `[data-live]` fresh; its value is the path of a socket. */
export function startLiveParts() {
  const root = document.querySelector("[data-live-parts]");
  if (!root) return null;
  const parts = new LiveParts();
  const socket = new LiveSocket(root.dataset.liveParts || "/ws/overview/");
  socket.addEventListener("message", ({ detail }) => detail.type !== "hello" && parts.soon());
  socket.addEventListener("again", () => parts.soon());
  socket.addEventListener("status", ({ detail }) => badge(detail.status));
  socket.open();
  setInterval(() => parts.soon(), POLL_MS); // devices and preparations have no event of their own
  document.addEventListener("visibilitychange", () => parts.soon());
  addEventListener("pagehide", () => socket.close());
  return parts;
}

class LiveParts {
  /** Asks the server for the page again, at most once a second and never while nobody looks. */
  soon() {
    if (this.timer || document.hidden) return;
    const wait = Math.max(0, (this.last ?? 0) + REFRESH_MS - Date.now());
    this.timer = setTimeout(async () => {
      this.last = Date.now();
      await this.fetch();
      this.timer = null;
    }, wait);
  }

  async fetch() {
    const asked = location.href;
    try {
      const answer = await fetch(asked, { headers: { "X-Part": "live" }, credentials: "same-origin" });
      if (answer.ok && !answer.redirected && asked === location.href) swapParts(await answer.text());
    } catch {
      // the badge says that the connection is away
    }
  }
}

/** Puts each `[data-part]` of `text` in place of the one on the page where it differs and nobody is busy in it. */
export function swapParts(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!old || same(old, part) || busy(old)) continue;
    part.querySelectorAll("time[data-ago]").forEach((time) => time.removeAttribute("class"));
    old.replaceChildren(...part.childNodes);
    old.dispatchEvent(new CustomEvent("r1:swapped", { bubbles: true }));
  }
}

/** Equal but for what pages write into it themselves: relative times and tokens of forms. */
function same(old, fresh) {
  const plain = (part) => {
    const copy = part.cloneNode(true);
    for (const time of copy.querySelectorAll("time[data-ago]")) time.textContent = "";
    for (const input of copy.querySelectorAll("input[name=csrfmiddlewaretoken]")) input.remove();
    for (const drawn of copy.querySelectorAll("[data-drawn]")) drawn.remove();
    return copy.innerHTML.replaceAll(' style=""', "");
  };
  return plain(old) === plain(fresh);
}

function busy(part) {
  const focus = document.activeElement;
  return (part.contains(focus) && focus.matches("input, textarea, select")) || part.querySelector("details[open], dialog[open]") !== null;
}
