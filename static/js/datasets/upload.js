// The upload: a place to drop the file on, its limit, and progress while it goes. Without this the form sends it all the same.

const form = document.querySelector("[data-upload]");
const place = form?.querySelector("[data-drop]");
const input = () => form.querySelector("input[type=file]"); // a refusal brings a fresh one
const bar = form?.querySelector("[data-upload-progress]");
const words = form?.querySelector("[data-upload-words]");
const cancel = form?.querySelector("[data-upload-cancel]");
const button = form?.querySelector("button.primary");
const THIN = "\u202f";

/** 1536 → "1.5 KiB", as the server writes it. */
export function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; Math.abs(size) >= 1024 && place < units.length - 1; place += 1) size /= 1024;
  return `${place === 0 || size >= 100 ? size.toFixed(0) : size.toFixed(1)}${THIN}${units[place]}`;
}

/** Why the chosen file need not be sent: it is larger than the limit. */
function tooLarge() {
  const [file] = input().files;
  const limit = Number(form.dataset.maxBytes);
  return limit && file?.size > limit ? `“${file.name}” has ${bytes(file.size)}; at most ${bytes(limit)} are taken.` : "";
}

function say(text) {
  words.textContent = text;
}

function rest(text = "") {
  say(text);
  bar.hidden = true;
  cancel.hidden = true;
  button.removeAttribute("aria-busy");
}

function send() {
  const request = new XMLHttpRequest();
  const began = performance.now();
  request.open("POST", form.action || location.href);
  request.responseType = "document";
  request.upload.onprogress = ({ loaded, total }) => {
    bar.hidden = false;
    bar.value = loaded / total;
    const speed = loaded / Math.max(0.001, (performance.now() - began) / 1000);
    const percent = Math.round((100 * loaded) / total);
    say(loaded < total ? `${bytes(loaded)} of ${bytes(total)} sent, ${percent}${THIN}%, ${bytes(speed)}/s` : "Looking inside…");
    cancel.hidden = loaded >= total;
  };
  request.onload = () => done(request);
  request.onerror = () => rest("The connection was lost; nothing was stored. Try again.");
  request.onabort = () => rest("Cancelled; nothing was stored.");
  cancel.onclick = () => request.abort();
  button.setAttribute("aria-busy", "true");
  request.send(new FormData(form));
}

/** A stored file leads on; a refused one comes back with the sentences at the fields. */
function done(request) {
  const next = new URL(request.responseURL);
  if (request.status === 200 && next.searchParams.has("upload")) {
    location.assign(next.href);
    return;
  }
  const fresh = request.response?.querySelectorAll("[data-upload] .field") ?? [];
  const old = form.querySelectorAll(".field");
  rest(fresh.length ? "" : `The server answered ${request.status}; nothing was stored.`);
  fresh.forEach((field, place) => old[place]?.replaceWith(field));
}

if (form) {
  for (const type of ["dragover", "dragleave", "drop"]) {
    place.addEventListener(type, (event) => {
      event.preventDefault();
      place.classList.toggle("over", type === "dragover");
      if (type === "drop" && event.dataTransfer.files.length) {
        input().files = event.dataTransfer.files;
        say(tooLarge() || input().files[0].name);
      }
    });
  }
  form.addEventListener("change", () => say(tooLarge()));
  form.addEventListener("submit", (event) => {
    if (!input().files.length) return;
    event.preventDefault();
    const refused = tooLarge();
    if (refused) rest(refused);
    else send();
  });
}
