// Ctrl/⌘ K: every page, run, dataset, pipeline and action by a few letters. What it knows comes from the server once,
// names of things are asked for while typing.
import { openKeys } from "./keys.js";
import { setTheme } from "./theme.js";

const ACTIONS = [
  { label: "Keyboard shortcuts", kind: "help", run: openKeys },
  { label: "Use the light theme", kind: "theme", run: () => setTheme("light") },
  { label: "Use the dark theme", kind: "theme", run: () => setTheme("dark") },
  { label: "Use the system's theme", kind: "theme", run: () => setTheme("auto") },
];
const TYPING_MS = 120;

export function startPalette() {
  const dialog = document.querySelector("[data-palette]");
  if (!dialog) return;
  const palette = new Palette(dialog);
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.metaKey || event.ctrlKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    palette.toggle();
  });
  document.addEventListener("click", ({ target }) => target.closest?.("[data-palette-open]") && palette.toggle());
  if (!/mac|iphone|ipad/i.test(navigator.platform)) {
    for (const kbd of document.querySelectorAll("[data-palette-open] kbd")) kbd.textContent = "Ctrl K";
  }
}

/** How well `label` fits what was typed: lower is better, null is not at all. Words may come in any order. */
export function fit(label, typed) {
  const text = label.toLowerCase();
  const places = typed.toLowerCase().split(/\s+/).filter(Boolean).map((part) => text.indexOf(part));
  if (places.some((place) => place < 0)) return null;
  return places.reduce((sum, place) => sum + (place === 0 ? 0 : text[place - 1] === " " ? 1 : 2), 0);
}

class Palette {
  constructor(dialog) {
    this.dialog = dialog;
    this.input = dialog.querySelector("[data-palette-input]");
    this.list = dialog.querySelector("[data-palette-list]");
    this.found = [];
    this.known = [];
    this.chosen = 0;
    this.input.addEventListener("input", () => this.typed());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("click", ({ target }) => {
      const item = target.closest("li[data-index]");
      if (item) this.go(Number(item.dataset.index));
    });
  }

  toggle() {
    if (this.dialog.open) {
      this.dialog.close();
      return;
    }
    this.input.value = "";
    this.dialog.showModal();
    this.ask();
    this.show();
  }

  typed() {
    this.chosen = 0;
    this.show();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), TYPING_MS);
  }

  async ask() {
    const typed = this.input.value.trim();
    try {
      const answer = await fetch(`${this.dialog.dataset.url}?q=${encodeURIComponent(typed)}`, { credentials: "same-origin" });
      if (!answer.ok || typed !== this.input.value.trim()) return;
      this.known = (await answer.json()).items;
      this.show();
    } catch {
      // away: what is known already stays
    }
  }

  show() {
    const typed = this.input.value.trim();
    const all = [...this.known, ...ACTIONS].map((item) => ({ item, score: fit(`${item.label} ${item.kind}`, typed) }));
    this.found = all.filter(({ score }) => score !== null).sort((a, b) => a.score - b.score).map(({ item }) => item).slice(0, 40);
    this.chosen = Math.min(this.chosen, Math.max(this.found.length - 1, 0));
    this.list.replaceChildren(...this.found.map((item, index) => this.row(item, index)));
    if (!this.found.length) this.list.append(Object.assign(document.createElement("li"), { className: "muted", textContent: "Nothing fits." }));
    this.input.setAttribute("aria-activedescendant", this.found.length ? `palette-${this.chosen}` : "");
  }

  row(item, index) {
    const row = document.createElement("li");
    row.id = `palette-${index}`;
    row.dataset.index = index;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(index === this.chosen));
    const kind = document.createElement("small");
    kind.textContent = item.kind;
    row.append(item.label, kind);
    return row;
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      this.chosen = (this.chosen + step + this.found.length) % Math.max(this.found.length, 1);
      this.show();
      this.list.children[this.chosen]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.go(this.chosen);
    }
  }

  go(index) {
    const item = this.found[index];
    if (!item) return;
    this.dialog.close();
    if (item.run) item.run();
    else location.assign(item.url);
  }
}
