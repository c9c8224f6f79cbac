// A row that is wider than its place: what of it is in view ("1–4 of 16"), and buttons that go on. The row itself takes
// the arrow keys; the shade at its edges is in the stylesheet.
import { h } from "./dom.js";

const SEEN = 0.6; // of an item's width, and it counts as in view

/** `items` side by side; an item with `data-times` stands for so many. Answers the bar above and the row. */
export function strip(items, label) {
  const row = h("div.rollout-row", { tabindex: "0", role: "group", "aria-label": label }, items);
  const words = h("span", { "data-range": "", role: "status" });
  const before = h("button.btn.small", { type: "button", "data-back": "", "aria-label": `Back in ${label.toLowerCase()}`, onclick: () => turn(row, -1) }, "‹");
  const after = h("button.btn.small", { type: "button", "data-on": "", "aria-label": `On in ${label.toLowerCase()}`, onclick: () => turn(row, 1) }, "›");
  const bar = h("div.strip-bar.muted", { hidden: true }, before, words, after);
  const look = () => {
    const [first, last] = inView(row, items);
    if (last < 0) return;
    words.textContent = range(items, first, last);
    before.setAttribute("aria-disabled", String(first === 0));
    after.setAttribute("aria-disabled", String(last === items.length - 1));
    bar.hidden = row.scrollWidth <= row.clientWidth;
  };
  row.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(row);
  return [bar, row];
}

function turn(row, by) {
  const [first, second] = row.children;
  const step = second ? second.offsetLeft - first.offsetLeft : row.clientWidth;
  const gap = step - first.offsetWidth;
  row.scrollLeft += by * Math.max(Math.floor((row.clientWidth + gap + 2) / step), 1) * step;
}

function inView(row, items) {
  const edge = row.getBoundingClientRect();
  const seen = items.map((item) => {
    const box = item.getBoundingClientRect();
    return box.width > 0 && Math.min(box.right, edge.right) - Math.max(box.left, edge.left) >= SEEN * box.width;
  });
  return [seen.indexOf(true), seen.lastIndexOf(true)];
}

function range(items, first, last) {
  const times = items.map((item) => Number(item.dataset.times ?? 1));
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const [from, to] = [sum(times.slice(0, first)) + 1, sum(times.slice(0, last + 1))];
  return `${from === to ? from : `${from}–${to}`} of ${sum(times)}`;
}
