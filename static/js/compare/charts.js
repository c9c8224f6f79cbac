// Runs over each other: the charts of a run's page with a line a run. Live runs are read again every few seconds.
import { carried } from "../run/api.js";
import { drawn, keepLinks, legend } from "./runs.js";
import { grid } from "../run/grid.js";
import { ManyRuns } from "../run/sources.js";
import { View } from "../run/view.js";

const AGAIN_MS = 5000;

const context = carried("compare-context");
const words = carried("metric-words");
const runs = drawn(context.runs);
const view = new View();
const source = new ManyRuns(context.urls.metrics, runs, `runs-${runs.map(({ id }) => id).slice(0, 8).join("-")}`);
const describe = (name) => ({ title: name, empty: "None of these runs wrote a value of it.", ...words[name] });
const board = grid({ source, describe, names: context.series, view });
legend(document.querySelector("[data-runs]"), runs, view);
keepLinks(view);
if (runs.some(({ live }) => live)) {
  setInterval(() => {
    if (!document.hidden && !view.zoomed) board.again();
  }, AGAIN_MS);
}
