// How every plot of the platform looks: one layout function, one way to draw. Plotly is fetched at the first plot.
// Pages give traces, units and words; grid, type, margins and colours of the theme are decided here only.

export const SERIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a6ff0", "#8c8c8c"];
export const heatScale = "Viridis"; // perceptually uniform, readable without colour vision
const CONFIG = { displayModeBar: false, responsive: false, showTips: false, doubleClick: "reset" };
const drawn = new Set();
let library = null;

/** The layout of a plot: ours below, `extra` above it, axes merged. `meta.label` becomes what a screen reader says. */
export function figure(extra = {}) {
  const [text, line, strong, raised] = ["--muted", "--line", "--line-strong", "--raised"].map(token);
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: strong, zeroline: false, automargin: true, ticks: "", tickfont: { size: 11 },
    title: { font: { size: 11 }, standoff: 8 }, exponentformat: "power", separatethousands: true };
  return {
    margin: { l: 48, r: 12, t: 8, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { size: 11, family: token("--sans") || "system-ui", color: text }, showlegend: false, hovermode: "x", dragmode: "zoom",
    hoverlabel: { bgcolor: raised, bordercolor: line, font: { size: 12, color: token("--text") }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } }, separators: ".\u202f", colorway: SERIES, bargap: 0.12,
    ...extra,
    xaxis: merge(axis, { showgrid: false }, extra.xaxis),
    yaxis: merge(axis, {}, extra.yaxis),
  };
}

/** Draws `traces` into `element`, or redraws what changed. */
export async function react(element, traces, layout) {
  const Plotly = await load();
  element.r1 = { traces, layout };
  if (layout.meta?.label) {
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", layout.meta.label);
  }
  await Plotly.react(element, traces, layout, CONFIG);
  if (!drawn.has(element)) fitted.observe(element);
  drawn.add(element);
}

export function resize(element) {
  if (element.r1 && element.clientWidth) window.Plotly?.Plots.resize(element);
}

/** A drawn plot as the data URL of a PNG, twice as fine as the screen and on the theme's ground. */
export async function picture(element) {
  const Plotly = await load();
  const { traces, layout } = element.r1;
  const size = { width: element.clientWidth, height: element.clientHeight };
  const title = { text: layout.meta?.label ?? "", font: { size: 12 }, x: 0.01, y: 0.98 };
  const figure = { data: traces, layout: { ...layout, ...size, title, margin: { ...layout.margin, t: 30 }, paper_bgcolor: token("--surface") } };
  return Plotly.toImage(figure, { format: "png", scale: 2, ...size });
}

/** Plotly itself, once. */
export function load() {
  library ??= new Promise((resolve, reject) => {
    if (window.Plotly) {
      resolve(window.Plotly);
      return;
    }
    const script = document.createElement("script");
    script.src = document.getElementById("core").dataset.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("The plotting library could not be loaded. Reload the page."));
    document.head.append(script);
  });
  return library;
}

function token(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return value.startsWith("light-dark(") ? resolved(name) : value;
}

/** A colour as the theme in force resolves it. */
function resolved(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  probe.hidden = true;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function merge(base, defaults, extra = {}) {
  const title = { ...base.title, ...(typeof extra.title === "string" ? { text: extra.title } : extra.title) };
  return { ...base, ...defaults, ...extra, title };
}

const fitted = new ResizeObserver((entries) => {
  for (const { target } of entries) requestAnimationFrame(() => resize(target));
});

document.addEventListener("r1:theme", () => {
  for (const element of drawn) {
    if (!element.isConnected) {
      drawn.delete(element);
      continue;
    }
    const { traces, layout } = element.r1;
    const colours = figure();
    for (const key of ["font", "hoverlabel"]) layout[key] = colours[key];
    for (const key of ["xaxis", "yaxis"]) Object.assign(layout[key], { gridcolor: colours[key].gridcolor, linecolor: colours[key].linecolor, zerolinecolor: colours[key].zerolinecolor });
    window.Plotly.react(element, traces, { ...layout }, CONFIG);
  }
});
