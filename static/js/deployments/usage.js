// Tokens by day as stacked bars, one colour a kind, models added up.
import { carried } from "../run/api.js";
import { figure, react } from "../plots.js";

const KINDS = [["input", "#56b4e9", (r) => r.prompt_tokens], ["answer", "#0072b2", (r) => r.completion_tokens - r.reasoning_tokens], ["thinking", "#cc79a7", (r) => r.reasoning_tokens]];
const place = document.getElementById("usage-plot");

if (place) {
  const rows = carried("usage-days");
  const days = [...new Set(rows.map((row) => row.day))].sort();
  const sum = (day, of) => rows.filter((row) => row.day === day).reduce((total, row) => total + of(row), 0);
  react(place, KINDS.map(([name, colour, of]) => ({
    type: "bar", name, x: days, y: days.map((day) => sum(day, of)), marker: { color: colour }, hovertemplate: `%{x}: %{y:,} ${name} tokens<extra></extra>`,
  })), figure({ barmode: "stack", showlegend: true, xaxis: { type: "category" }, yaxis: { title: { text: "tokens" }, rangemode: "tozero" }, hovermode: "closest", meta: { label: "Tokens by day" } }));
}
