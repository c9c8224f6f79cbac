// The form of a deployment: another engine brings its own settings; a checkpoint or an imported model is chosen, not both.

const form = document.querySelector("[data-deployment-form]");
const place = form.querySelector("[data-engine-fields]");

const OTHER = { checkpoint: "imported_model", imported_model: "checkpoint" };

form.addEventListener("change", async ({ target }) => {
  const other = form.elements[OTHER[target.name]];
  if (other && target.value) other.value = "";
  if (target.name !== "engine") return;
  const answer = await fetch(`${place.dataset.url}?engine=${encodeURIComponent(target.value)}`, { credentials: "same-origin" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  place.replaceChildren(...fresh.body.childNodes);
  place.dispatchEvent(new Event("change", { bubbles: true })); // the check of the memory reads the new settings
});
