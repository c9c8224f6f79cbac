// Throughput and latencies over the number of streams at once: of one benchmark its percentiles, of several their medians with
// the slowest hundredth dotted. While it runs the figures are read again whenever the page has them anew.
import { carried } from "../run/api.js";
import { number } from "../run/words.js";
import { SERIES, figure, react } from "../plots.js";

const CHARTS = {
  tokens_per_second: { title: "tokens/s", what: "Throughput" }, ttft_seconds: { title: "ms", what: "Time to the first token" },
  itl_seconds: { title: "ms", what: "Time between tokens" }, e2e_seconds: { title: "ms", what: "Time of the whole answer" },
};
const DASHES = { p50: "solid", p90: "dash", p99: "dot" };
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];

function shown() {
  return document.getElementById("benchmark-charts") ? carried("benchmark-charts") : [carried("benchmark-chart")];
}

/** The lines of one chart: [{name, place (of its colour), dash, values}]. */
function lines(key, benchmarks) {
  if (key === "tokens_per_second") return benchmarks.map(({ name, levels }, place) => ({ name, place, dash: "solid", values: levels.map((l) => l[key]) }));
  const statistics = benchmarks.length > 1 ? ["p50", "p99"] : ["p50", "p90", "p99"];
  return benchmarks.flatMap(({ name, levels }, place) => statistics.map((statistic) => ({
    name: benchmarks.length > 1 ? `${name}, ${statistic}` : statistic, place, dash: DASHES[statistic],
    values: levels.map((level) => (level[key] ? level[key][statistic] * 1000 : null)),
  })));
}

function draw() {
  const benchmarks = shown();
  const levels = [...new Set(benchmarks.flatMap((one) => one.levels.map((level) => level.concurrency)))].sort((a, b) => a - b);
  document.querySelector("[data-benchmark-charts]").hidden = levels.length === 0;
  if (!levels.length) return;
  for (const [key, { title, what }] of Object.entries(CHARTS)) {
    const found = lines(key, benchmarks);
    const traces = found.map(({ name, place, dash, values }) => ({
      type: "scatter", mode: "lines+markers", name, showlegend: benchmarks.length === 1 || dash === "solid", x: benchmarks[place].levels.map((level) => level.concurrency), y: values,
      line: { color: SERIES[place % SERIES.length], width: 1.5, dash }, marker: { size: 6, symbol: SYMBOLS[place % SYMBOLS.length], color: SERIES[place % SERIES.length] },
      text: values.map((value) => `${number(value)} ${title}`), hovertemplate: `${name}: %{text} with %{x} at once<extra></extra>`,
    }));
    react(document.querySelector(`[data-chart="${key}"]`), traces, figure({
      showlegend: found.length > 1, hovermode: "closest", xaxis: { type: "log", tickvals: levels, ticktext: levels.map(String), title: { text: "streams at once" } },
      yaxis: { rangemode: "tozero", title: { text: title } }, meta: { label: `${what} with ${levels[0]} to ${levels.at(-1)} streams at once` },
      legend: { orientation: "h", y: -0.28, yanchor: "top", x: 0, font: { size: 11 } }, margin: { l: 48, r: 12, t: 8, b: found.length > 1 ? 72 : 34 },
    }));
  }
}

addEventListener("r1:swapped", ({ target }) => target.dataset.part === "figures" && draw());
draw();
