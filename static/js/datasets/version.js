// A version's page: its statistics as plots; a page that was followed while it was prepared is loaded anew at the end.
import { figure, react } from "../plots.js";

const ENDS = new Set(["ready", "failed", "stopped"]);
const source = document.getElementById("version-statistics");
const WORDS = { prompt_chars: "prompts", completion_chars: "completions", chosen_chars: "chosen answers", rejected_chars: "rejected answers" };

/** Bars of a histogram as `{edges, counts}`, as pairs, or as `{value: count}`. */
export function bars(given) {
  if (!given) return null;
  if (Array.isArray(given)) return given.length ? { x: given.map((p) => p[0] ?? p.x), y: given.map((p) => p[1] ?? p.y) } : null;
  if (Array.isArray(given.counts)) {
    const edges = given.edges ?? given.bins ?? [];
    const x = given.counts.map((_, i) => (edges.length > i + 1 ? (edges[i] + edges[i + 1]) / 2 : edges[i] ?? i));
    const width = edges.length > 1 ? given.counts.map((_, i) => (edges[i + 1] ?? edges[i] + 1) - edges[i]) : undefined;
    return given.counts.length ? { x, y: given.counts, width } : null;
  }
  const entries = Object.entries(given).filter(([, count]) => typeof count === "number");
  return entries.length ? { x: entries.map(([value]) => value), y: entries.map(([, count]) => count) } : null;
}

/** A histogram of lengths, or the most frequent values of anything else. */
function draw(card, statistics) {
  const key = card.dataset.card;
  const part = statistics[key];
  const found = bars(part?.histogram ?? part?.most_common ?? null);
  card.hidden = !found;
  if (!found) return;
  const isLength = Boolean(part.histogram);
  const what = WORDS[key] ?? "rows";
  const value = key === "answers" ? "the answer %{x}" : "%{x}";
  react(card.querySelector("[data-plot]"), [{
    type: "bar", ...found, x: isLength ? found.x : found.x.map((name) => `${name}`), marker: { color: "#0072b2" },
    hovertemplate: isLength ? `%{y:,} ${what} near %{x:.0f} characters<extra></extra>` : `%{y:,} rows have ${value}<extra></extra>`,
  }], figure({
    xaxis: { title: { text: isLength ? "characters" : key.replaceAll("_", " ").replace(/s$/, "") }, type: isLength ? "linear" : "category" },
    yaxis: { title: { text: isLength ? what : "rows" }, rangemode: "tozero" }, hovermode: "closest", bargap: 0.06,
    meta: { label: card.querySelector("h3").textContent },
  }));
}

if (source) {
  const statistics = JSON.parse(source.textContent);
  for (const card of document.querySelectorAll("[data-statistics] [data-card]")) draw(card, statistics);
}
document.addEventListener("r1:swapped", () => {
  const state = document.querySelector("[data-reload-when-done] [data-state]")?.dataset.state;
  if (ENDS.has(state)) location.reload();
});
