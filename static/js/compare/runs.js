// The runs of a comparison: the colour and stroke of each, and the row of buttons that shows or hides them.
import { h } from "../run/dom.js";
import { SERIES } from "../plots.js";

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

/** Adds to each run its label, its colour, fixed to its id, and a stroke that tells it from others of that colour. */
export function drawn(runs) {
  const times = new Map();
  return runs.map((run) => {
    const colour = SERIES[run.id % SERIES.length];
    const before = times.get(colour) ?? 0;
    times.set(colour, before + 1);
    return { ...run, label: `${run.id} ${run.name}`, colour, dash: DASHES[before % DASHES.length] };
  });
}

/** Fills `place` with a button for each run that hides and shows it; `view` keeps which are hidden. */
export function legend(place, runs, view) {
  const toggle = (key) => {
    const hidden = view.hidden;
    if (!hidden.delete(key)) hidden.add(key);
    view.set({ hide: [...hidden].join(",") });
  };
  const buttons = runs.map(({ id, label, colour }) => {
    const key = String(id);
    return [key, h("button.btn.small", { type: "button", "data-run": key, onclick: () => toggle(key) }, h("i.swatch", { style: { background: colour } }), label)];
  });
  const show = () => buttons.forEach(([key, button]) => button.setAttribute("aria-pressed", String(!view.hidden.has(key))));
  place.replaceChildren(...buttons.map(([, button]) => button));
  view.addEventListener("change", show);
  show();
}

/** Lets the links to the other parts keep what this one has put into the address. */
export function keepLinks(view) {
  const write = () => {
    for (const link of document.querySelectorAll("[data-part-link]")) {
      const url = new URL(location.href);
      url.searchParams.set("part", new URL(link.href).searchParams.get("part"));
      link.href = url.href;
    }
  };
  view.addEventListener("change", write);
}
