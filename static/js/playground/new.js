// The first message of a chat, written as every later one; a second Enter does not begin a second chat.
import { Composer } from "./composer.js";

for (const form of document.querySelectorAll("[data-composer]")) {
  let sent = false;
  new Composer(form);
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  addEventListener("pageshow", () => { sent = false; });
}
