// A rule's form shows the fields of its kind only.
for (const fields of document.querySelectorAll("[data-rule-form]")) {
  const kind = fields.querySelector("[name=kind]");
  const show = () => {
    for (const part of fields.querySelectorAll("[data-kinds]")) part.hidden = !part.dataset.kinds.split(" ").includes(kind.value);
  };
  kind.addEventListener("change", show);
  show();
}
