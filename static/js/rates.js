// Layer-wise learning rates: the factor of each kind of weight, from the lowest part of the model to the highest. On a run's
// page the numbers stand in the page; beside a form they are asked for again whenever a setting has changed.
import { figure, react } from "./plots.js";

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];

export function draw(card, { parts, kinds, is_even: isEven }) {
  const place = card.querySelector("[data-plot]");
  place.hidden = false;
  card.querySelector("[data-note]").textContent = isEven
    ? "Every part learns at the full rate. A decay below 1, or a factor other than 1, spreads them." : "";
  const label = `Factor of the learning rate in ${parts.length} parts of the model`;
  react(place, kinds.map(({ kind, factors }, index) => ({
    type: "scatter", mode: "lines+markers", name: kind, x: parts, y: factors, connectgaps: false,
    line: { width: 1.25 }, marker: { size: 6, symbol: SYMBOLS[index % SYMBOLS.length] },
    hovertemplate: `%{x}, ${kind}: %{y:.4~g} of the peak rate<extra></extra>`,
  })), figure({
    showlegend: true, hovermode: "closest", xaxis: { type: "category", title: { text: "part of the model, from below" } },
    yaxis: { rangemode: "tozero", title: { text: "factor" } }, meta: { label }, margin: { l: 48, r: 12, t: 8, b: 64 },
  }));
}

function say(card, text) {
  card.querySelector("[data-plot]").hidden = true;
  card.querySelector("[data-note]").textContent = text;
}

async function ask(card, form, signal) {
  const answer = await fetch(card.dataset.ratesUrl, { method: "POST", body: new FormData(form), signal });
  const told = await answer.json();
  if (told.parts) draw(card, told);
  else say(card, told.detail);
}

function follow(card) {
  const form = card.closest("form");
  let soon, asked;
  const again = () => {
    clearTimeout(soon);
    soon = setTimeout(() => {
      asked?.abort();
      asked = new AbortController();
      ask(card, form, asked.signal).catch((error) => {
        if (error.name !== "AbortError") say(card, "The rates could not be asked for; the next change tries again.");
      });
    }, 250);
  };
  form.addEventListener("change", again);
  form.addEventListener("input", ({ target }) => {
    if (/lr_|layer|block|expert|preset/i.test(target.name + target.id)) again();
  });
  again();
}

for (const card of document.querySelectorAll("[data-rates]")) {
  const given = document.getElementById("rates");
  if (card.dataset.ratesUrl) follow(card);
  else if (given) draw(card, JSON.parse(given.textContent));
}
