// The grid of charts of a page: a section per group of metrics, the menu of each chart, and the toolbar over all of them.
import { Board } from "./board.js";
import { saveNumbers, savePicture } from "./export.js";
import { h } from "./dom.js";
import { View } from "./view.js";

const GROUPS = [
  ["eval/loss", "Learning"], ["eval", "Held-out"], ["reward", "Reward"], ["accuracy", "Reward"], ["", "Learning"], ["clip", "Learning"],
  ["adv", "Advantage"], ["len", "Length"], ["truncated_ratio", "Length"], ["moe", "Experts"],
  ["train_rollout_logprob_diff", "Sampler against trainer"], ["perf", "Speed"],
];

/** Title of the section a metric belongs to: by the part of its name before the slash. */
export function groupOf(name) {
  const prefix = name.includes("/") ? name.split("/")[0] : "";
  const found = GROUPS.find(([key]) => key === name) ?? GROUPS.find(([key]) => key === prefix);
  return found ? found[1] : prefix[0].toUpperCase() + prefix.slice(1);
}

const ORDER = [...new Set(["Held-out", "Reward", ...GROUPS.map(([, title]) => title)])];

/** Fills `[data-charts]` with a chart of each name and answers the board. */
export function grid({ source, describe, names, view = new View() }) {
  const root = document.querySelector("[data-charts]");
  const board = new Board({ root, view, source, describe });
  const show = (name) => addPanel(root, board, describe(name), name);
  for (const name of names) show(name);
  root.addEventListener("new-series", ({ detail }) => {
    if (!board.panels.has(detail)) show(detail);
    filter(root, view.values.q);
  });
  toolbar(view, root);
  return board;
}

function addPanel(root, board, words, name) {
  root.querySelector("[data-charts-empty]")?.setAttribute("hidden", "");
  const panel = document.getElementById("chart-panel").content.cloneNode(true).firstElementChild;
  panel.dataset.name = name;
  panel.querySelector("[data-title]").textContent = words.title;
  panel.querySelector("[data-title]").title = `${name}: ${words.meaning ?? ""}`;
  panel.querySelector("[data-unit]").textContent = words.unit ?? "";
  section(root, groupOf(name)).append(panel);
  const chart = board.add(name, panel);
  const on = (what, act) => panel.querySelector(`[data-${what}]`).addEventListener("click", act);
  on("fullscreen", () => toggleFullscreen(panel, board));
  on("save-picture", () => leave(panel, savePicture(chart, board.source.title)));
  on("save-numbers", () => leave(panel, saveNumbers(chart, board.source.title)));
}

/** Closes a chart's menu and gives the keyboard back. */
function leave(panel) {
  panel.querySelector("details").open = false;
  panel.querySelector("summary").focus();
}

function section(root, title) {
  const old = [...root.querySelectorAll("[data-group]")].find((s) => s.dataset.group === title);
  if (old) return old.querySelector("[data-group-grid]");
  const made = document.getElementById("chart-group").content.cloneNode(true).firstElementChild;
  made.dataset.group = title;
  made.querySelector("[data-group-title]").textContent = title;
  const rank = (t) => (ORDER.includes(t) ? ORDER.indexOf(t) : ORDER.length);
  const next = [...root.querySelectorAll("[data-group]")].find((s) => rank(s.dataset.group) > rank(title));
  root.insertBefore(made, next ?? null);
  return made.querySelector("[data-group-grid]");
}

async function toggleFullscreen(panel, board) {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await panel.requestFullscreen();
  board.resized();
}

function toolbar(view, root) {
  const bar = document.querySelector("[data-chart-toolbar]");
  const control = (name) => bar.querySelector(`[name=${name}]`);
  const fill = () => {
    control("smooth").value = view.values.smooth;
    control("x").value = view.values.x;
    control("logx").checked = view.values.logx;
    control("logy").checked = view.values.logy;
    control("fit").checked = view.values.fit;
    control("q").value = view.values.q;
    bar.querySelector("[data-smooth-value]").textContent = view.values.smooth.toFixed(2);
    bar.querySelector("[data-zoom-reset]").hidden = !view.zoomed;
  };
  fill();
  filter(root, view.values.q);
  view.addEventListener("change", ({ detail }) => {
    fill();
    if (detail.changed.has("q")) filter(root, view.values.q);
  });
  control("smooth").addEventListener("input", (e) => view.set({ smooth: Number.parseFloat(e.target.value) }));
  control("x").addEventListener("change", (e) => view.set({ x: e.target.value, from: null, to: null }));
  control("q").addEventListener("input", (e) => view.set({ q: e.target.value }));
  for (const name of ["logx", "logy"]) control(name).addEventListener("change", (e) => view.set({ [name]: e.target.checked, from: null, to: null }));
  control("fit").addEventListener("change", (e) => view.set({ fit: e.target.checked }));
  bar.querySelector("[data-zoom-reset]").addEventListener("click", () => view.set({ from: null, to: null }));
}

function filter(root, text) {
  const wanted = text.trim().toLowerCase();
  let found = 0;
  for (const group of root.querySelectorAll("[data-group]")) {
    let shown = 0;
    for (const panel of group.querySelectorAll("[data-name]")) {
      const words = `${panel.dataset.name} ${panel.querySelector("[data-title]").textContent}`.toLowerCase();
      panel.hidden = !words.includes(wanted);
      shown += panel.hidden ? 0 : 1;
    }
    group.hidden = shown === 0;
    found += shown;
  }
  none(root, found || !root.querySelector("[data-name]") ? "" : `No chart is called “${text.trim()}”.`);
}

function none(root, sentence) {
  const place = root.querySelector("[data-charts-none]") ?? root.appendChild(h("p.plot-note.muted", { "data-charts-none": "", role: "status" }));
  place.textContent = sentence;
  place.hidden = !sentence;
}
