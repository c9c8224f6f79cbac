// The run page: one stream for header, badge and the open tab. Tabs are modules that export `start(stream, context)`.
import { carried } from "./api.js";
import { RunStream } from "./stream.js";

const TABS = {
  charts: () => import("./charts.js"), rollouts: () => import("./rollouts.js"), rewards: () => import("./rewards.js"),
  experts: () => import("./experts.js"), logs: () => import("./logs.js"),
};
const REFRESH_MS = 1000;
const HEADER_KINDS = new Set(["started", "stage", "progress", "evaluation", "checkpoint", "finished", "error", "stopping", "fallback", "warning"]);
const BADGES = {
  live: ["live", "Connected: changes appear as they happen."],
  reconnecting: ["reconnecting", "The connection was lost; trying again. Nothing is missed."],
  stale: ["stale", "No connection for a while: what you see may be old."],
  "signed out": ["signed out", "You are signed out or your access ended. Reload the page to sign in."],
  "no access": ["no access", "You are no member of this project any more."],
  gone: ["gone", "This run does not exist any more."],
};

class Header {
  constructor(url) {
    this.url = url;
    this.timer = null;
  }

  /** Asks the server for the words of header and stats again, at most once a second. */
  refresh(now = false) {
    if (this.timer) return;
    const wait = now ? 0 : Math.max(0, (this.last ?? 0) + REFRESH_MS - Date.now());
    this.timer = setTimeout(() => this.fetch(), wait);
  }

  async fetch() {
    this.last = Date.now();
    try {
      const answer = await fetch(this.url, { credentials: "same-origin" });
      if (answer.ok) this.swap(await answer.text());
    } catch {
      // the stream's badge says that the network is away; the next event asks again
    }
    this.timer = null;
  }

  swap(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const old = document.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!old || old.innerHTML === part.innerHTML || busy(old)) continue;
      old.replaceChildren(...part.childNodes);
      old.dispatchEvent(new CustomEvent("r1:swapped", { bubbles: true }));
    }
  }
}

/** A part with an open menu or the focus in it stays as it is. */
function busy(part) {
  return part.contains(document.activeElement) || part.querySelector("details[open], dialog[open]") !== null;
}

function badge(status) {
  const element = document.querySelector("[data-live-badge]");
  const [word, why] = BADGES[status] ?? ["connecting", "Connecting…"];
  element.dataset.status = status;
  element.querySelector("[data-live-word]").textContent = word;
  element.title = why;
}

async function begin() {
  const context = carried("run-context");
  const stream = new RunStream(context.urls.socket, context.last_event_id);
  const header = new Header(context.urls.header);
  stream.addEventListener("status", ({ detail }) => badge(detail.status));
  stream.addEventListener("state", () => header.refresh(true));
  stream.addEventListener("hello", () => header.refresh());
  stream.addEventListener("event", ({ detail }) => {
    if (HEADER_KINDS.has(detail.kind)) header.refresh();
  });
  const tab = TABS[context.tab];
  if (tab) (await tab()).start(stream, context);
  stream.open();
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && stream.open());
}

begin();
