// Small behaviours that any page can have by an attribute: dialogs, menus, busy buttons, relative times, copying, tabs.

/** `data-dialog="id"` opens that dialog, `data-dialog-close` closes its own; a click on the backdrop closes too. */
export function startDialogs() {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest?.("[data-dialog]");
    if (opener) document.getElementById(opener.dataset.dialog)?.showModal();
    const closer = event.target.closest?.("[data-dialog-close]");
    if (closer) closer.closest("dialog")?.close();
    if (event.target.matches?.("dialog") && outside(event)) event.target.close();
  });
}

function outside({ target, clientX: x, clientY: y }) {
  const box = target.getBoundingClientRect();
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}

/** Menus are `<details class="menu">`: Escape and a click elsewhere close them. */
export function startMenus() {
  const open = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("click", ({ target }) => {
    for (const menu of open()) if (!menu.contains(target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of open()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

/** A submitted form says so at once and cannot be sent twice; `data-submit-on-change` sends by itself. */
export function startForms() {
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || event.target.method === "get") return;
    const button = event.submitter ?? event.target.querySelector("button:not([type=button])");
    setTimeout(() => {
      if (!event.defaultPrevented) button?.setAttribute("aria-busy", "true");
    });
  });
  document.addEventListener("submit", (event) => {
    if (event.submitter?.getAttribute("aria-busy") === "true") event.preventDefault();
  }, true);
  document.addEventListener("change", ({ target }) => {
    if (target.matches?.("[data-submit-on-change]")) target.form.requestSubmit();
  });
  document.addEventListener("keydown", (event) => { // Enter in the search of a select looks, it does not send the form
    if (event.key === "Enter" && event.target.closest?.(".searched > input")) event.preventDefault();
  });
  addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("[aria-busy=true]")) button.removeAttribute("aria-busy");
  });
}

/** 192 → "3 min ago", the same words as the server's `ago`. */
export function relative(seconds) {
  const size = Math.abs(seconds);
  if (size < 5) return "just now";
  const found = [[60, 1, "s"], [3600, 60, "min"], [86_400, 3600, "h"], [86_400 * 120, 86_400, "d"]].find(([limit]) => size < limit);
  const [, divisor, unit] = found ?? [0, 86_400 * 30, "months"];
  const amount = `${Math.floor(size / divisor)}\u202f${unit}`;
  return seconds > 0 ? `${amount} ago` : `in ${amount}`;
}

export function startTimes() {
  setInterval(() => {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("time[data-ago]")) {
      const words = relative((Date.now() - Date.parse(element.dateTime)) / 1000);
      if (element.textContent !== words) element.textContent = words;
    }
  }, 5000);
}

/** Code blocks get a button that copies them; `data-copy-text` on any button copies its text. */
export function startCopying() {
  const dress = () => {
    for (const block of document.querySelectorAll("pre.code:not([data-copies])")) {
      block.dataset.copies = "";
      block.querySelector("code")?.setAttribute("tabindex", "0"); // it is what scrolls
      block.removeAttribute("tabindex");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "icon-btn code-copy";
      button.setAttribute("aria-label", "Copy");
      button.title = "Copy";
      button.innerHTML = '<i class="icon icon-copy"></i>';
      button.addEventListener("click", () => copied(button, block.querySelector("code")?.textContent ?? ""));
      block.prepend(button);
    }
  };
  dress();
  document.addEventListener("r1:swapped", dress);
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("[data-copy-text]");
    if (button) copied(button, button.dataset.copyText);
  });
}

/** Tabs wider than the screen begin with the one you are on in view; only their own row scrolls. */
export function startTabs() {
  for (const tab of document.querySelectorAll(".tabs > [aria-current]")) {
    const row = tab.parentElement;
    const [box, frame] = [tab.getBoundingClientRect(), row.getBoundingClientRect()];
    row.scrollLeft += box.left + box.width / 2 - (frame.left + frame.width / 2);
  }
}

async function copied(button, text) {
  await navigator.clipboard.writeText(text);
  button.querySelector(".icon")?.classList.replace("icon-copy", "icon-check");
  setTimeout(() => button.querySelector(".icon")?.classList.replace("icon-check", "icon-copy"), 1200);
}
