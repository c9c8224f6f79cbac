// Filters of a list act while you type: the address changes, and the parts of the page are fetched anew for it.
import { swapParts } from "../live.js";

const TYPING_MS = 250;

for (const form of document.querySelectorAll("[data-live-filters]")) {
  let timer = null;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => show(form), TYPING_MS);
  };
  form.addEventListener("input", soon);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    soon();
  });
}

async function show(form) {
  const values = [...new FormData(form)].filter(([, value]) => value);
  history.replaceState(history.state, "", `${location.pathname}?${new URLSearchParams(values)}`);
  const asked = location.href;
  const answer = await fetch(asked, { headers: { "X-Part": "live" }, credentials: "same-origin" });
  if (answer.ok && asked === location.href) swapParts(await answer.text());
}
