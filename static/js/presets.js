// Choosing a model preset fills in the settings of the model; a setting changed by hand takes the choice back.
const presets = JSON.parse(document.getElementById("model-presets")?.textContent ?? "{}");

function fill(form, prefix, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && typeof value === "object") fill(form, `${prefix}${name}.`, value);
    const field = form.elements[prefix + name];
    if (!field) continue;
    if (field.type === "checkbox") field.checked = Boolean(value);
    else field.value = value ?? "";
  }
}

for (const choice of document.querySelectorAll("[data-presets]")) {
  const prefix = choice.dataset.presets;
  choice.addEventListener("change", () => {
    if (choice.value) fill(choice.form, prefix, presets[choice.value]);
  });
  choice.form.addEventListener("input", (event) => {
    if (event.target.name?.startsWith(prefix)) choice.value = "";
  });
}
