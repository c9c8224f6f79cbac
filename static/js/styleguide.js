// Samples for the style guide: the theme buttons, a toast, three plots with invented numbers.
import { figure, heatScale, react } from "./plots.js";
import { setTheme } from "./theme.js";
import { toast } from "./toasts.js";

for (const button of document.querySelectorAll("[data-theme-set]")) button.addEventListener("click", () => setTheme(button.dataset.themeSet));
document.querySelector("[data-sample-toast]").addEventListener("click", () => toast("Run 41 is stopping. It writes a checkpoint first.", "success"));
for (const swatch of document.querySelectorAll("[data-token]")) swatch.style.background = `var(${swatch.dataset.token})`;

const steps = Array.from({ length: 80 }, (_, i) => i + 1);
const wave = (i) => Math.sin(i * 12.9898) * 43758.5453 % 1;
const raw = steps.map((s) => 0.42 + 0.45 * (1 - Math.exp(-s / 25)) + wave(s) * 0.06);
let smoothed = raw[0];
const smooth = raw.map((y) => (smoothed = 0.85 * smoothed + 0.15 * y));
const line = (y, more) => ({ x: steps, y, mode: "lines", line: { color: "#0072b2", width: 1.8 }, hovertemplate: "step %{x}: %{y:.3f}<extra></extra>", ...more });
react(document.querySelector("[data-sample-plot=line]"), [line(raw, { opacity: 0.25, line: { color: "#0072b2", width: 1 }, hoverinfo: "skip", hovertemplate: null }), line(smooth)],
  figure({ xaxis: { title: { text: "step" } }, meta: { label: "Reward by step" } }));
react(document.querySelector("[data-sample-plot=bars]"), [{ type: "bar", x: [20, 40, 60, 80, 100, 120], y: [40, 410, 820, 640, 210, 30], marker: { color: "#0072b2" }, hovertemplate: "%{y:,} prompts near %{x} characters<extra></extra>" }],
  figure({ xaxis: { title: { text: "characters" } }, yaxis: { title: { text: "prompts" } }, hovermode: "closest", meta: { label: "Prompt lengths" } }));
react(document.querySelector("[data-sample-plot=heat]"), [{ type: "heatmap", z: [[0.1, 0.14, 0.12, 0.13, 0.11, 0.15, 0.12, 0.13], [0.16, 0.09, 0.12, 0.1, 0.14, 0.13, 0.12, 0.14]], y: ["layer 2", "layer 3"], colorscale: heatScale, xgap: 2, ygap: 2, zmin: 0, colorbar: { thickness: 8, outlinewidth: 0, tickformat: ".0%" }, hovertemplate: "%{y}, expert %{x}: %{z:.1%}<extra></extra>" }],
  figure({ xaxis: { title: { text: "expert" }, dtick: 1 }, yaxis: { type: "category", showgrid: false }, hovermode: "closest", meta: { label: "Expert load" } }));
