// Named values of a group of settings: choosing one fills the group in. The choice always names what the settings are:
// one that is changed by hand takes it back, and one that is typed in is found again.

function* leaves(prefix, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && typeof value === "object") yield* leaves(`${prefix}${name}.`, value);
    else yield [prefix + name, value];
  }
}

function fill(form, prefix, values) {
  for (const [name, value] of leaves(prefix, values)) {
    const field = form.elements[name];
    if (!field) continue;
    if (field.type === "checkbox") field.checked = Boolean(value);
    else field.value = value ?? "";
  }
}

function says(field, value) {
  if (!field) return true;
  if (field.type === "checkbox") return field.checked === Boolean(value);
  if (value === null || field.value === "") return value === null && field.value === "";
  return typeof value === "number" ? Number(field.value) === value : field.value === String(value);
}

for (const choice of document.querySelectorAll("[data-presets]")) {
  const { form, dataset: { presets: prefix, presetsFrom } } = choice;
  const presets = JSON.parse(document.getElementById(presetsFrom).textContent);
  const isSo = ([, values]) => [...leaves(prefix, values)].every(([name, value]) => says(form.elements[name], value));
  const mark = () => { choice.value = Object.entries(presets).find(isSo)?.[0] ?? ""; };
  choice.addEventListener("change", (event) => {
    event.stopPropagation(); // the settings tell their own change, once
    if (!choice.value) return;
    fill(form, prefix, presets[choice.value]);
    form.dispatchEvent(new Event("change"));
  });
  form.addEventListener("input", (event) => {
    if (event.target.name?.startsWith(prefix)) mark();
  });
  mark();
}
