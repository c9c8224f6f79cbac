// A socket that stays: reconnects, says whether it is live, and hands every message on. The server sends a snapshot
// first on each connection, so that nothing depends on what was missed.

const SILENCE_MS = 35_000; // the server pings every 15 s
const FINAL_CODES = { 4401: "signed out", 4403: "no access", 4404: "gone" };

export class Follower extends EventTarget {
  constructor(path) {
    super();
    this.path = path;
    this.retries = 0;
  }

  open() {
    const url = new URL(this.path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(url);
    this.socket.onmessage = ({ data }) => {
      this.retries = 0;
      this.say("live");
      this.watch();
      this.dispatchEvent(new CustomEvent("message", { detail: JSON.parse(data) }));
    };
    this.socket.onclose = ({ code }) => this.closed(code);
  }

  watch() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket.close(), SILENCE_MS);
  }

  closed(code) {
    clearTimeout(this.silence);
    if (FINAL_CODES[code]) {
      this.say(FINAL_CODES[code]);
      return;
    }
    this.say(this.retries > 3 ? "stale" : "reconnecting");
    setTimeout(() => this.open(), Math.min(250 * 2 ** this.retries, 5000));
    this.retries += 1;
  }

  say(status) {
    if (status === this.status) return;
    this.status = status;
    this.dispatchEvent(new CustomEvent("status", { detail: { status } }));
  }
}
