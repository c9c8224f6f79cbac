// The review by hand: one tick for all, and keys for those who review many (j and k move, x ticks, a accepts, r leaves out).
const form = document.querySelector("[data-review]");
if (form) {
  const cards = [...form.querySelectorAll("[data-judged]")];
  const ticks = cards.map((card) => card.querySelector("[name=judgement]"));
  const all = form.querySelector("[data-all]");
  const agree = () => { all.checked = ticks.every((tick) => tick.checked); };
  let at = -1;

  const go = (to) => {
    at = Math.min(Math.max(to, 0), cards.length - 1);
    cards[at].focus();
  };
  const keys = {
    j: () => go(at + 1),
    k: () => go(at - 1),
    x: () => { if (at >= 0) ticks[at].click(); },
    a: () => decide("accepted"),
    r: () => decide("rejected"),
  };
  const decide = (to) => {
    if (at < 0) return;
    ticks.forEach((tick, place) => { tick.checked = place === at; });
    form.querySelector(`[name=to][value=${to}]`).click();
  };

  agree();
  form.querySelector("[data-review-keys]").hidden = false;
  all.addEventListener("change", () => ticks.forEach((tick) => { tick.checked = all.checked; }));
  form.addEventListener("change", agree);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, select, input:not([type=checkbox])")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
