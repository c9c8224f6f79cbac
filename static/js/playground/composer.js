// Where a message is written: Enter sends, Shift + Enter breaks the line, and the field grows with its text.

const MAX_HEIGHT_PX = 240;

export class Composer {
  constructor(form) {
    this.form = form;
    this.input = form.elements.content;
    this.input.addEventListener("keydown", (event) => this.keys(event));
    this.input.addEventListener("input", () => this.grow());
  }

  keys(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (this.input.value.trim()) this.form.requestSubmit();
  }

  grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, MAX_HEIGHT_PX)}px`;
  }
}
