// The keyboard: j and k walk through the rows of a page, / goes to its search, g and a letter to a place, ? says all of it.
// Nothing here acts while somebody writes or a dialog is open.

const ROWS = "main .table tbody tr, main .rows > li";
const GO_MS = 1200;

export function startKeys() {
  const help = document.querySelector("[data-keys]");
  let goes = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || writes(event.target) || document.querySelector("dialog[open]")) return;
    const went = goes > event.timeStamp && help?.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    goes = event.key === "g" && !went ? event.timeStamp + GO_MS : 0;
    if (went) location.assign(went.href);
    else if (event.key === "?") openKeys();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") document.querySelector("main input[type=search]")?.focus();
    else return;
    event.preventDefault();
  });
}

export function openKeys() {
  document.querySelector("[data-keys]")?.showModal();
}

function writes(target) {
  return target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName);
}

/** Focuses the first link of the next or the previous row that has one; from nowhere the first or the last. */
function step(by) {
  const links = [...document.querySelectorAll(ROWS)].map((row) => row.querySelector("a[href]")).filter((link) => link?.offsetParent);
  if (!links.length) return;
  const row = document.activeElement?.closest?.(ROWS);
  const at = row ? links.findIndex((link) => row.contains(link)) : -1;
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}
