// The run page: one stream for header, badge and the open tab. Tabs are modules that export `start(stream, context)`.
import { badge, swapParts } from "../live.js";
import { carried } from "./api.js";
import { RunStream } from "./stream.js";

const TABS = {
  charts: () => import("./charts.js"), rollouts: () => import("./rollouts.js"), rewards: () => import("./rewards.js"),
  experts: () => import("./experts.js"), logs: () => import("./logs.js"),
};
const REFRESH_MS = 1000;
const SILENT_KINDS = new Set(["scalars", "experts", "rollouts"]); // they change a tab, not the header

class Header {
  constructor(url) {
    this.url = url;
  }

  /** Asks the server for the words of header and stats again, at most once a second and not while hidden. */
  refresh() {
    this.wanted = document.hidden;
    if (this.timer || document.hidden) return;
    const wait = Math.max(0, (this.last ?? 0) + REFRESH_MS - Date.now());
    this.timer = setTimeout(() => this.fetch(), wait);
  }

  async fetch() {
    this.last = Date.now();
    try {
      const answer = await fetch(this.url, { credentials: "same-origin" });
      if (answer.ok && !answer.redirected) swapParts(await answer.text());
    } catch {
      // the badge says that the network is away; the next event asks again
    }
    this.timer = null;
  }
}

async function begin() {
  const context = carried("run-context");
  const stream = new RunStream(context.urls.socket, context.last_event_id);
  const header = new Header(context.urls.header);
  stream.addEventListener("status", ({ detail }) => badge(detail.status));
  for (const type of ["state", "hello", "alert"]) stream.addEventListener(type, () => header.refresh());
  stream.addEventListener("event", ({ detail }) => SILENT_KINDS.has(detail.kind) || header.refresh());
  document.addEventListener("visibilitychange", () => header.wanted && header.refresh());
  const tab = TABS[context.tab];
  if (tab) (await tab()).start(stream, context);
  stream.open();
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && stream.open());
}

begin();
