// The rail's "Running now": the last known list at once, then the server's, then again while the page is looked at.

const KEY = "r1-rail-now";
const POLL_MS = 5000;

export function startRail() {
  const place = document.querySelector("[data-rail-now]");
  if (!place) return;
  show(place, recall());
  const ask = () => document.hidden || fetchInto(place);
  ask();
  setInterval(ask, POLL_MS);
  document.addEventListener("visibilitychange", ask);
  document.addEventListener("click", ({ target }) => {
    if (location.hash === "#rail" && !target.closest(".rail, [href='#rail']")) location.hash = "content";
  });
}

async function fetchInto(place) {
  try {
    const answer = await fetch(place.dataset.url, { credentials: "same-origin" });
    if (!answer.ok || answer.redirected) return;
    const text = await answer.text();
    if (text === place.dataset.shown) return;
    show(place, text);
    sessionStorage.setItem(KEY, text);
  } catch {
    // away: the last known list stays
  }
}

function show(place, text) {
  if (text === null) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  place.replaceChildren(...fresh.body.childNodes);
  place.hidden = !place.querySelector("a");
  place.dataset.shown = text;
}

function recall() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}
