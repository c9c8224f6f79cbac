// The socket of one run: every event once and in order, whatever the network does. Over the socket that comes back it
// adds what only a run has: each attempt numbers its events without a gap, so a hole is seen and asked for.
import { LiveSocket } from "../live.js";

export class RunStream extends LiveSocket {
  constructor(path, after = 0, makeSocket = undefined) {
    super(path, { after, makeSocket });
    this.seqs = new Map(); // attempt → seq of its newest event
    this.holes = new Set(); // those asked for once; if the server has nothing to fill them with, we go on
  }

  receive(message) {
    this.heard();
    if (message.type === "event") this.take(message);
    else if (message.type !== "ping") this.tell(message.type, message);
  }

  take(event) {
    if (event.id <= this.after) return;
    const before = this.seqs.get(event.attempt);
    const hole = `${event.attempt}:${event.seq}`;
    if (before !== undefined && event.seq > before + 1 && !this.holes.has(hole)) {
      this.holes.add(hole);
      this.ask();
      return;
    }
    this.seqs.set(event.attempt, event.seq);
    this.after = event.id;
    this.tell("event", event);
  }

  /** Connects anew: the server sends everything after the last event that we have. */
  ask() {
    const old = this.socket;
    old.onmessage = old.onclose = null;
    old.close();
    this.open();
  }
}
