// The socket of one run: every event once and in order, whatever the network does. It registers with the id of the
// last event it has, drops what it has seen, reconnects where the sequence of an attempt has a hole, and says
// whether what you see is live. It knows nothing of charts; they listen to "event" and "state".

const SILENCE_MS = 35_000; // the server pings every 15 s
const STALE_MS = 10_000;
const FINAL_CODES = { 4401: "signed out", 4403: "no access", 4404: "gone" };

export class RunStream extends EventTarget {
  constructor(path, after = 0, makeSocket = (url) => new WebSocket(url)) {
    super();
    this.path = path;
    this.lastId = after;
    this.makeSocket = makeSocket;
    this.seqs = new Map(); // attempt → seq of its newest event
    this.status = "connecting";
    this.holes = new Set(); // those asked for once; if the server has nothing to fill them with, we go on
    this.retries = 0;
    this.timer = null;
    this.watch = null;
  }

  open() {
    this.socket = this.makeSocket(this.url());
    this.socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    this.socket.onclose = (event) => this.closed(event.code);
    return this;
  }

  url() {
    const base = new URL(this.path, location.href);
    base.protocol = base.protocol === "https:" ? "wss:" : "ws:";
    base.searchParams.set("after", this.lastId);
    return base.href;
  }

  receive(message) {
    this.heard();
    if (message.type === "event") this.take(message);
    else if (message.type === "hello") this.tell("hello", message);
    else if (message.type === "state") this.tell("state", message);
  }

  take(event) {
    if (event.id <= this.lastId) return;
    const before = this.seqs.get(event.attempt);
    const hole = `${event.attempt}:${event.seq}`;
    if (before !== undefined && event.seq > before + 1 && !this.holes.has(hole)) {
      this.holes.add(hole);
      this.again();
      return;
    }
    this.seqs.set(event.attempt, event.seq);
    this.lastId = event.id;
    this.tell("event", event);
  }

  again() {
    const old = this.socket;
    old.onmessage = old.onclose = null;
    old.close();
    this.open();
  }

  heard() {
    this.retries = 0;
    clearTimeout(this.staleTimer);
    this.staleTimer = null;
    this.say("live");
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.socket.close(), SILENCE_MS);
  }

  closed(code) {
    clearTimeout(this.watch);
    if (FINAL_CODES[code]) {
      this.say(FINAL_CODES[code]);
      return;
    }
    if (this.status === "live" || this.status === "connecting") this.say("reconnecting");
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
    clearTimeout(this.timer);
    clearTimeout(this.watch);
    clearTimeout(this.staleTimer);
    if (this.socket) {
      this.socket.onclose = null;
      this.socket.close();
    }
  }
}
