// What the charts show — smoothing, axis, scales, range, filter, hidden runs — kept in the address, so that a link is the view.

export const AXES = {
  step: { title: "step", noun: "step", of: (b) => b.step, key: "step" },
  time: { title: "time", noun: "time", of: (b) => new Date(b.time * 1000), key: "time" },
  process: { title: "process time (s)", noun: "process time", of: (b) => b.process, key: "process" },
  tokens: { title: "tokens", noun: "token", of: (b) => b.tokens, key: "tokens" },
};
const DEFAULTS = { x: "step", smooth: 0.95, logx: false, logy: false, fit: false, from: null, to: null, q: "", hide: "" };

export class View extends EventTarget {
  constructor(search = location.search) {
    super();
    const given = new URLSearchParams(search);
    this.values = { ...DEFAULTS };
    if (Object.hasOwn(AXES, given.get("x") ?? "")) this.values.x = given.get("x");
    const smooth = Number.parseFloat(given.get("smooth"));
    if (smooth >= 0 && smooth < 1) this.values.smooth = smooth;
    for (const key of ["logx", "logy", "fit"]) this.values[key] = given.get(key) === "1";
    const [from, to] = ["from", "to"].map((key) => number(given.get(key)));
    if (from !== null && to !== null && from < to) Object.assign(this.values, { from, to });
    this.values.q = given.get("q") ?? "";
    this.values.hide = (given.get("hide") ?? "").split(",").filter((key) => /^\d+$/.test(key)).join(",");
  }

  get axis() {
    return AXES[this.values.x];
  }

  /** Whether the x axis is logarithmic; times have no logarithm. */
  get logx() {
    return this.values.logx && this.values.x !== "time";
  }

  /** Keys of the lines that are not drawn. */
  get hidden() {
    return new Set(this.values.hide.split(",").filter(Boolean));
  }

  get zoomed() {
    return this.values.from !== null;
  }

  /** Changes some values, writes them to the address and tells everybody which changed. */
  set(changes) {
    const changed = Object.keys(changes).filter((key) => changes[key] !== this.values[key]);
    if (!changed.length) return;
    Object.assign(this.values, changes);
    history.replaceState(history.state, "", this.address());
    this.dispatchEvent(new CustomEvent("change", { detail: { changed: new Set(changed) } }));
  }

  address() {
    const url = new URL(location.href);
    for (const [key, initial] of Object.entries(DEFAULTS)) {
      const value = this.values[key];
      if (value === initial) url.searchParams.delete(key);
      else url.searchParams.set(key, value === true ? "1" : value);
    }
    return url.href;
  }
}

function number(text) {
  const value = Number.parseFloat(text);
  return Number.isFinite(value) ? value : null;
}
