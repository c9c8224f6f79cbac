// The theme: as the system says, or chosen and kept in this browser. Whoever draws colours listens to "r1:theme".

export function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

export function setTheme(value) {
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  try {
    if (value === "auto") localStorage.removeItem("r1-theme");
    else localStorage.setItem("r1-theme", value);
  } catch {
    // kept for this page only
  }
  mark();
  document.dispatchEvent(new CustomEvent("r1:theme"));
}

export function startTheme() {
  document.addEventListener("change", ({ target }) => target.matches?.("[data-theme-choice]") && setTheme(target.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("r1:theme")));
  mark();
}

function mark() {
  for (const choice of document.querySelectorAll("[data-theme-choice]")) choice.checked = choice.value === theme();
}
