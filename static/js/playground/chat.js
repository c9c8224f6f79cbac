// A conversation on the screen. The answer belongs to the server: this page shows the thread as the server renders it,
// adds what the socket streams after each message's seq, and asks for the thread again where it does not fit.
import { badge, LiveSocket } from "../live.js";
import { Composer } from "./composer.js";

const ENDS = new Set(["done", "stopped", "failed", "interrupted"]);
const NEAR_END_PX = 80;

class Chat {
  constructor(root) {
    this.root = root;
    this.thread = root.querySelector("[data-thread]");
    this.form = root.querySelector("[data-composer]");
    this.note = root.querySelector("[data-composer-note]");
    this.input = this.form.elements.content;
    this.composer = new Composer(this.form);
    this.form.addEventListener("submit", (e) => this.send(e));
    this.root.addEventListener("submit", (e) => this.act(e));
    this.thread.addEventListener("toggle", (e) => this.toggled(e), true);
    this.thread.addEventListener("click", (e) => this.clicked(e));
    this.socket = new LiveSocket(root.dataset.socket);
    this.socket.addEventListener("message", ({ detail }) => this.heard(detail));
    this.socket.addEventListener("status", ({ detail }) => badge(detail.status));
    this.socket.open();
    addEventListener("pagehide", () => this.socket.close());
    this.clock = setInterval(() => this.tick(), 250);
    this.after();
    this.toEnd();
  }

  async send(event) {
    event.preventDefault();
    const text = this.input.value.trim();
    if (!text || this.sending) return;
    this.sending = true;
    const done = await this.post(this.form);
    this.sending = false;
    if (!done) return;
    this.moveTo(done);
    this.input.value = "";
    this.composer.grow();
    await this.refresh();
    this.toEnd();
  }

  /** Forms in the thread (stop, regenerate, edit, judge) act without leaving the page. */
  async act(event) {
    const form = event.target;
    if (form === this.form || !form.matches("[data-act]")) return;
    event.preventDefault();
    const text = form.elements.content;
    if (text && !text.value.trim()) return;
    const done = await this.post(form, event.submitter);
    if (!done) return;
    this.moveTo(done);
    await this.refresh();
  }

  /** An address that names a branch follows to the one that was just begun; without one the newest is shown anyway. */
  moveTo(answer) {
    const branch = answer.headers.get("Content-Location");
    if (!branch || !new URL(location.href).searchParams.has("at")) return;
    history.replaceState(history.state, "", branch);
    this.root.dataset.threadUrl = this.root.dataset.threadUrl.split("?")[0] + new URL(branch, location.href).search;
  }

  /** The server's answer, or null after saying why nothing was done. */
  async post(form, button = null) {
    this.say("");
    try {
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form, button), headers: { Accept: "application/json" } });
      if (answer.ok) return answer;
      const body = await answer.json().catch(() => ({}));
      this.say(body.detail ?? `The server answered ${answer.status}; nothing was sent.`);
    } catch {
      this.say("The server cannot be reached; nothing was sent. Your text is still here.");
    }
    return null;
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  heard(message) {
    if (message.type === "delta") this.delta(message);
    else if (message.type === "state") this.state(message);
    else if (message.type === "snapshot" || message.type === "conversation") this.refresh();
    else if (message.type === "error") this.say(message.detail ?? "The server could not do that.");
  }

  of(id) {
    return this.thread.querySelector(`[data-message="${id}"]`);
  }

  delta({ message: id, seq, channel, text }) {
    const element = this.of(id);
    if (!element || seq > Number(element.dataset.seq) + 1) {
      this.refresh();
      return;
    }
    if (seq <= Number(element.dataset.seq)) return;
    element.dataset.seq = seq;
    const stick = this.nearEnd();
    const place = element.querySelector(channel === "reasoning" ? "[data-reasoning]" : "[data-content]");
    place.append(text);
    this.stage(element, channel === "reasoning" ? "thinking" : "answering");
    if (stick) this.toEnd();
  }

  state({ message: id, state }) {
    const element = this.of(id);
    if (!element || ENDS.has(state)) this.refresh();
    else this.stage(element, state);
  }

  stage(element, state) {
    if (element.dataset.state === state || ENDS.has(element.dataset.state)) return;
    element.dataset.state = state;
    if (state !== "queued") element.querySelector("[data-waiting]")?.remove();
    const thinking = element.querySelector("[data-thinking]");
    if (!thinking) return;
    thinking.hidden = thinking.hidden && state !== "thinking";
    if (state === "thinking") element.dataset.thoughtFrom ||= Date.now();
    if (state === "answering" && element.dataset.thoughtFrom) element.dataset.thoughtTo ||= Date.now();
    if (thinking.dataset.touched) return;
    this.byCode = true;
    thinking.open = state === "thinking";
  }

  toggled({ target }) {
    if (target.matches("[data-tokens]") && target.open) this.tokens(target);
    if (!target.matches("[data-thinking]")) return;
    if (!this.byCode) target.dataset.touched = "1";
    this.byCode = false;
  }

  /** The tokens of an answer, asked for once they are looked at. */
  async tokens(fold) {
    const place = fold.querySelector("[data-tokens-shown]");
    if (place.childElementCount) return;
    const answer = await fetch(fold.dataset.tokens, { credentials: "same-origin" }).catch(() => null);
    if (!answer?.ok) {
      place.textContent = "The tokens cannot be loaded now.";
      return;
    }
    const found = new DOMParser().parseFromString(await answer.text(), "text/html");
    place.replaceChildren(...found.body.children);
  }

  /** Seconds of thinking while it goes on. */
  tick() {
    for (const element of this.thread.querySelectorAll("[data-state=thinking]")) {
      const place = element.querySelector("[data-thinking-words]");
      const from = Number(element.dataset.thoughtFrom) || Date.now();
      if (place) place.textContent = `Thinking, ${((Date.now() - from) / 1000).toFixed(0)} s`;
    }
  }

  /** Shows the thread as the server has it now; one request at a time, and once more if asked meanwhile. */
  async refresh() {
    if (this.refreshing) {
      this.once = true;
      return;
    }
    this.refreshing = true;
    try {
      const answer = await fetch(this.root.dataset.threadUrl, { credentials: "same-origin" });
      if (answer.ok) this.swap(await answer.text());
    } catch {
      // the badge says that the connection is away; the next snapshot asks again
    }
    this.refreshing = false;
    if (this.once) {
      this.once = false;
      await this.refresh();
    }
  }

  swap(text) {
    const stick = this.nearEnd();
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const kept = new Map([...this.thread.querySelectorAll("[data-message]")].map((old) => [old.dataset.message, old]));
    for (const child of fresh.querySelectorAll("[data-message]")) {
      const stays = this.keep(kept.get(child.dataset.message), child);
      if (stays !== child) child.replaceWith(stays);
    }
    this.thread.replaceChildren(...fresh.body.children, ...fresh.head.children);
    this.after();
    if (stick) this.toEnd();
  }

  /** The element that stays: the old one when nothing changed or when it has streamed further than the answer. */
  keep(old, fresh) {
    if (!old) return fresh;
    const further = Number(old.dataset.seq) > Number(fresh.dataset.seq) && !ENDS.has(fresh.dataset.state);
    if (further || (old.dataset.version === fresh.dataset.version && old.dataset.version)) return old;
    const [was, is] = [old, fresh].map((e) => e.querySelector("[data-thinking]"));
    if (was?.dataset.touched && is) {
      is.dataset.touched = "1";
      is.open = was.open;
    }
    fresh.dataset.thoughtFrom ||= old.dataset.thoughtFrom ?? "";
    return fresh;
  }

  after() {
    const place = [...this.thread.children].filter((child) => !child.matches("template")).at(-1);
    const answers = [place, ...(place?.querySelectorAll("[data-message]") ?? [])].filter((one) => one?.dataset.message);
    const last = answers.find((one) => one.matches("[data-shown]")) ?? answers.at(-1);
    const busy = answers.filter((one) => one.dataset.role === "assistant" && !ENDS.has(one.dataset.state));
    this.form.querySelector("[data-send]").disabled = busy.length > 0;
    this.form.elements.parent.value = last?.dataset.message ?? "";
    for (const leaf of this.root.querySelectorAll("[data-shown-leaf]")) leaf.value = last?.dataset.message ?? "";
    this.root.querySelector("[data-stop-slot]").replaceChildren(...this.stop(busy));
    this.root.querySelector("[data-code-shown]").replaceChildren(this.thread.querySelector("template[data-code]").content.cloneNode(true));
    this.root.querySelector("[data-thread-empty]")?.toggleAttribute("hidden", Boolean(last));
  }

  /** One button that stops all that is being written. */
  stop(busy) {
    const [form, ...others] = busy.map((one) => one.querySelector("template[data-stop]")?.content.firstElementChild.cloneNode(true)).filter(Boolean);
    for (const other of others) form.append(other.querySelector("[name=message]"));
    return form ? [form] : [];
  }

  async clicked(event) {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      await navigator.clipboard.writeText(copy.closest("[data-message]").querySelector("[data-source]").content.textContent.trim());
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    }
    const edit = event.target.closest("[data-edit]");
    if (edit) this.edit(edit.closest("[data-message]"));
    const said = event.target.closest("[data-edit-said]");
    if (said) this.edit(this.of(said.dataset.editSaid));
  }

  edit(element) {
    const form = element.querySelector("form[data-edit-form]");
    form.hidden = !form.hidden;
    element.querySelector("[data-content]").hidden = !form.hidden;
    if (!form.hidden) form.elements.content.focus({ preventScroll: true });
  }

  nearEnd() {
    const page = document.scrollingElement;
    return page.scrollHeight - page.scrollTop - page.clientHeight < NEAR_END_PX;
  }

  toEnd() {
    document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  }
}

for (const root of document.querySelectorAll("[data-chat]")) new Chat(root);
