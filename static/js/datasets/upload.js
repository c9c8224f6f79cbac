// The upload: a place to drop the file on, and progress while it goes. Without this the form sends it all the same.

const form = document.querySelector("[data-upload]");
const place = form.querySelector("[data-drop]");
const input = () => form.querySelector("input[type=file]"); // a refusal brings a fresh one
const bar = form.querySelector("[data-upload-progress]");
const words = form.querySelector("[data-upload-words]");

for (const type of ["dragover", "dragleave", "drop"]) {
  place.addEventListener(type, (event) => {
    event.preventDefault();
    place.classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) {
      input().files = event.dataTransfer.files;
      words.textContent = input().files[0].name;
    }
  });
}

form.addEventListener("submit", (event) => {
  if (!input().files.length) return;
  event.preventDefault();
  const request = new XMLHttpRequest();
  request.open("POST", form.action || location.href);
  request.responseType = "document";
  request.upload.onprogress = ({ loaded, total }) => {
    bar.hidden = false;
    bar.value = loaded / total;
    words.textContent = loaded < total ? `${Math.round((100 * loaded) / total)}\u202f% sent` : "Looking inside…";
  };
  request.onload = () => done(request);
  request.onerror = () => {
    words.textContent = "The connection was lost; nothing was stored. Try again.";
    form.querySelector("button.primary").removeAttribute("aria-busy");
  };
  form.querySelector("button.primary").setAttribute("aria-busy", "true");
  request.send(new FormData(form));
});

/** A stored file leads on to its rows; a refused one comes back with the sentence at the field. */
function done(request) {
  const next = new URL(request.responseURL);
  if (request.status === 200 && next.searchParams.has("upload")) {
    location.assign(next.href);
    return;
  }
  const fresh = request.response?.querySelector("[data-drop] .field");
  words.textContent = "";
  if (fresh) place.querySelector(".field").replaceWith(fresh);
  else words.textContent = `The server answered ${request.status}; nothing was stored.`;
  bar.hidden = true;
  form.querySelector("button.primary").removeAttribute("aria-busy");
}
