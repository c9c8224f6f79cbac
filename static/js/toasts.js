// Short sentences at the corner: what just happened. Errors stay until they are closed, the rest goes by itself.

const STAY_MS = 6000;

/** Says a sentence; `level` is success, info, warning or error. */
export function toast(text, level = "info") {
  const element = document.createElement("div");
  element.className = `toast ${level}`;
  element.dataset.toast = "";
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "icon-btn";
  close.dataset.toastClose = "";
  close.setAttribute("aria-label", "Close");
  close.innerHTML = '<i class="icon icon-close"></i>';
  element.append(words, close);
  document.querySelector("[data-toasts]").append(element);
  expire(element);
}

export function startToasts() {
  document.addEventListener("click", ({ target }) => target.closest?.("[data-toast-close]")?.closest("[data-toast]").remove());
  document.querySelectorAll("[data-toast]").forEach(expire);
  document.addEventListener("htmx:responseError", ({ detail }) => toast(`The server answered ${detail.xhr.status}. Nothing was changed.`, "error"));
  document.addEventListener("htmx:sendError", () => toast("The server cannot be reached. Nothing was changed.", "error"));
}

function expire(element) {
  if (!element.classList.contains("error")) setTimeout(() => element.remove(), STAY_MS);
}
