// Parallel coordinates: an upright axis for each setting that differs and each result, a line a run. Which axes are drawn and
// which runs are hidden stands in the address.
import { axesOf, places } from "./axes.js";
import { carried } from "../run/api.js";
import { drawn, keepLinks, legend } from "./runs.js";
import { figure, react } from "../plots.js";
import { h } from "../run/dom.js";
import { View } from "../run/view.js";

const TITLE_WIDTH = 120; // of an axis, in pixels: where they have less, titles lie aslant

const comparison = carried("comparison");
const runs = drawn(comparison.runs);
const axes = axesOf(comparison);
const view = new View();
const [plot, note] = [document.querySelector("[data-plot]"), document.querySelector("[data-note]")];

function chosen() {
  const asked = new URL(location.href).searchParams.get("axes");
  return asked === null ? axes.filter((axis) => axis.first) : axes.filter((axis) => asked.split(",").includes(axis.key));
}

function choose(boxes) {
  const url = new URL(location.href);
  url.searchParams.set("axes", boxes.filter((box) => box.checked).map((box) => box.value).join(","));
  history.replaceState(history.state, "", url.href);
  draw();
}

function menu() {
  const picked = new Set(chosen().map(({ key }) => key));
  const boxes = axes.map(({ key }) => h("input", { type: "checkbox", value: key, checked: picked.has(key), onchange: () => choose(boxes) }));
  document.querySelector("[data-axes]").replaceChildren(...axes.map(({ title }, i) => h("label.menu-item", {}, boxes[i], ` ${title}`)));
}

async function draw() {
  const shown = chosen();
  const { hidden } = view;
  const why = !axes.length ? "These runs differ in no setting and have measured nothing." : shown.length < 2 ? "Choose at least two axes." : "";
  note.textContent = why;
  note.hidden = !why;
  plot.hidden = Boolean(why);
  if (why) return;
  const traces = runs.flatMap((run, index) => (hidden.has(String(run.id)) ? [] : [line(run, index, shown)]));
  await react(plot, traces, layout(shown));
}

function line({ label, colour, dash }, index, shown) {
  const y = shown.map((axis) => places(axis)[index]);
  return { type: "scatter", mode: "lines+markers", x: shown.map((_, i) => i), y, name: label, connectgaps: false, line: { color: colour, width: 1.6, dash },
    marker: { size: 6, color: colour }, text: shown.map((axis) => `${label}: ${axis.title} ${axis.words(index)}`), hoverinfo: "text" };
}

function layout(shown) {
  const ends = shown.flatMap((axis, i) => axis.ends.map((text, top) => ({ x: i, y: top, text, showarrow: false, yshift: top ? 12 : -12, font: { size: 11 } })));
  return figure({
    hovermode: "closest", dragmode: false, annotations: ends, margin: { l: 48, r: 48, t: 28, b: 60 },
    shapes: shown.map((_, i) => ({ type: "line", x0: i, x1: i, y0: 0, y1: 1, line: { width: 1, color: "#8c8c8c" }, layer: "below" })),
    xaxis: { tickvals: shown.map((_, i) => i), ticktext: shown.map(({ title }) => title), tickangle: plot.clientWidth < shown.length * TITLE_WIDTH ? -40 : 0, automargin: true, range: [-0.4, shown.length - 0.6], side: "bottom" },
    yaxis: { visible: false, range: [-0.12, 1.12] },
    meta: { label: `Parallel coordinates of ${runs.length} runs over ${shown.map(({ title }) => title).join(", ")}` },
  });
}

legend(document.querySelector("[data-runs]"), runs, view);
keepLinks(view);
view.addEventListener("change", draw);
menu();
draw();
