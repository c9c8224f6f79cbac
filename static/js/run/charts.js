// The Charts tab: a board of one run's metrics, fed by its stream.
import { carried } from "./api.js";
import { grid } from "./grid.js";
import { OneRun } from "./sources.js";
import { SERIES } from "../plots.js";

export function start(stream, context) {
  const words = carried("metric-words");
  const source = new OneRun(context.urls.metrics, SERIES[context.run % SERIES.length], `run-${context.run}`);
  const describe = (name) => ({ title: name, empty: emptyWords(name, context), ...words[name] });
  const board = grid({ source, describe, names: context.series });
  stream.addEventListener("event", ({ detail }) => {
    if (detail.kind === "scalars") board.take(detail);
  });
  return board;
}

function emptyWords(name, context) {
  return context.live ? "No value yet; the first comes with the next step." : "This run wrote no value of it.";
}
