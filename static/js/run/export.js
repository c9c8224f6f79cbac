// A chart taken along: the picture as PNG in the theme in force, the numbers that are drawn as CSV.
import { picture } from "../plots.js";

const COLUMNS = ["step", "last", "min", "max", "n", "nonfinite", "time", "tokens", "process"];

/** Lets the browser save the chart as it stands. */
export async function savePicture(panel, title) {
  if (panel.drawn) save(await picture(panel.plot), `${fileName(panel, title)}.png`);
}

/** The buckets that are drawn, one a row: of a long line several points, with their extremes. */
export function saveNumbers(panel, title) {
  const url = URL.createObjectURL(new Blob([csv(panel)], { type: "text/csv" }));
  save(url, `${fileName(panel, title)}.csv`);
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The text of the file; a number that is none is an empty cell. */
export function csv({ name, shown }) {
  const rows = shown.flatMap(({ line, buckets }) => buckets.map((b) => [line.label, ...COLUMNS.map((key) => b[key])]));
  const head = ["run", ...COLUMNS.map((key) => (key === "last" ? name : key === "process" ? "process_seconds" : key))];
  return `${[head, ...rows].map((row) => row.map(cell).join(",")).join("\n")}\n`;
}

function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function fileName(panel, title) {
  return `${title} ${panel.name}`.replace(/[^\w.-]+/g, "-");
}

function save(url, name) {
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
}
