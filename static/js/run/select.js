// Which runs of the table are ticked for a comparison: kept while the table is filtered, turned over and refreshed.
const KEY = "r1-compare";

const button = document.querySelector("[data-compare]");
const form = document.getElementById("compare");
const ticked = new Set(stored());

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

const boxes = () => document.querySelectorAll("input[name=runs][form=compare]");

/** Ticks what is chosen, and says on the button how many that are. */
function show() {
  for (const box of boxes()) box.checked = ticked.has(box.value);
  button.disabled = ticked.size === 0;
  button.textContent = ticked.size ? `Compare ${ticked.size} ${ticked.size === 1 ? "run" : "runs"}` : "Compare";
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches("input[name=runs][form=compare]")) return;
  if (target.checked) ticked.add(target.value);
  else ticked.delete(target.value);
  sessionStorage.setItem(KEY, JSON.stringify([...ticked]));
  show();
});
document.addEventListener("r1:swapped", show);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`${form.action}?runs=${[...ticked].join(",")}`);
});
show();
