// The form of a deployment: another engine brings its own settings.

const form = document.querySelector("[data-deployment-form]");
const place = form.querySelector("[data-engine-fields]");

form.addEventListener("change", async ({ target }) => {
  if (target.name !== "engine") return;
  const answer = await fetch(`${place.dataset.url}?engine=${encodeURIComponent(target.value)}`, { credentials: "same-origin" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  place.replaceChildren(...fresh.body.childNodes);
});
