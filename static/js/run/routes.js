// Routing, token by token: a text is sent to a checkpoint, its answer is asked for until it is there. In the address as `routed=ID`.
import { read } from "./api.js";
import { h } from "./dom.js";
import { figure, heatScale, react } from "../plots.js";
import { percent } from "./words.js";

const ASK_MS = 700;

export function startRoutes(root, url) {
  return new Routes(root, url).begin();
}

class Routes {
  constructor(root, url) {
    Object.assign(this, { root, url, layer: 0 });
    this.form = root.querySelector("[data-routes-form]");
    this.layers = root.querySelector("[data-routes-layer]");
    this.before = root.querySelector("[data-routes-before]");
    this.form?.addEventListener("submit", (event) => this.send(event));
    this.form?.querySelector("button").removeAttribute("disabled"); // before this the form would lead away
    this.layers.addEventListener("change", () => this.draw(Number(this.layers.value)));
    this.before.addEventListener("change", () => this.open(Number(this.before.value)));
  }

  /** What was asked last, or what the address names. */
  async begin() {
    const asked = await read(this.url).catch(() => []);
    this.fill(asked);
    const id = Number(new URLSearchParams(location.search).get("routed")) || asked[0]?.id;
    if (id) await this.open(id);
  }

  fill(asked) {
    this.before.replaceChildren(...asked.map((one) => new Option(`${one.id}: ${cut(one.prompt)}`, one.id)));
  }

  async send(event) {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(this.form));
    this.say("The checkpoint is loaded and reads the text…");
    const answer = await fetch(this.url, { method: "POST", credentials: "same-origin", body: JSON.stringify(values),
      headers: { "Content-Type": "application/json", "X-CSRFToken": values.csrfmiddlewaretoken } });
    const told = await answer.json();
    if (!answer.ok) {
      this.say(told.detail);
      return;
    }
    this.fill(await read(this.url));
    await this.open(told.id);
  }

  async open(id) {
    this.id = id;
    this.before.value = id;
    const address = new URL(location.href);
    address.searchParams.set("routed", id);
    history.replaceState(history.state, "", address);
    try {
      const told = await read(`${this.url}${id}/`);
      if (id !== this.id) return;
      if (told.state === "working") {
        this.say("The checkpoint is loaded and reads the text…");
        setTimeout(() => id === this.id && this.open(id), ASK_MS);
      } else if (told.state === "failed") this.say(told.error);
      else this.show(told);
    } catch (error) {
      this.say(error.message);
    }
  }

  say(text) {
    this.root.querySelector("[data-routes-words]").textContent = text;
  }

  show(told) {
    this.told = told;
    this.say(`${told.tokens.length} tokens, ${told.experts.length} layers of ${told.num_experts} experts`);
    this.root.querySelector("[data-routes-told]").hidden = false;
    this.layers.replaceChildren(...told.experts.map((_, i) => new Option(`${i + 1}`, i)));
    this.draw(Math.min(this.layer, told.experts.length - 1));
  }

  draw(layer) {
    this.layer = layer;
    this.layers.value = layer;
    const { told } = this;
    this.root.querySelector("[data-routes-tokens]").replaceChildren(...told.tokens.map((token, i) => this.token(token, i)));
    const weights = Array.from({ length: told.num_experts }, () => told.tokens.map(() => null));
    told.experts[layer].forEach((experts, i) => experts.forEach((expert, k) => { weights[expert][i] = told.weights[layer][i][k]; }));
    const experts = weights.map((_, i) => i);
    this.heat("routes", told.tokens.map((_, i) => i), experts, weights, { x: "token", text: weights.map(() => told.tokens), hover: "%{text} (token %{x}), expert %{y}: weight %{z:.3f}" });
    const names = told.domains.map((one) => `${one.domain || "no task"} (${one.num_texts})`);
    this.heat("domains", names, experts, experts.map((e) => told.domains.map((one) => one.loads[layer][e])), { x: "", hover: "%{x}, expert %{y}: %{z:.1%} of the choices", category: true });
  }

  token(text, i) {
    const { experts, weights, entropy } = this.told;
    const [chosen, given] = [experts[this.layer][i], weights[this.layer][i]];
    const words = `${JSON.stringify(text)} → ${chosen.map((expert, k) => `expert ${expert} (${given[k].toFixed(2)})`).join(", ")}; gate ${percent(entropy[this.layer][i], 0)} undecided`;
    const span = h("span", { title: words, style: { "--token": colour(chosen[0], this.told.num_experts) }, onpointerenter: () => this.hover(words) }, text.replace(/\n/g, "⏎") || "·");
    return span;
  }

  hover(words) {
    this.root.querySelector("[data-routes-hover]").textContent = words;
  }

  heat(key, x, y, z, { x: title, hover, text, category = false }) {
    const place = this.root.querySelector(`[data-plot=${key}]`);
    react(place, [{ type: "heatmap", x, y, z, text, colorscale: heatScale, zmin: 0, xgap: 1, ygap: 1, colorbar: { thickness: 8, outlinewidth: 0, len: 1 }, hovertemplate: `${hover}<extra></extra>` }],
      figure({ xaxis: { title: { text: title }, showgrid: false, ...(category ? { type: "category" } : {}) }, yaxis: { title: { text: "expert" }, autorange: "reversed", showgrid: false, dtick: y.length > 32 ? 16 : 1 },
        hovermode: "closest", meta: { label: place.getAttribute("aria-label") } }));
  }
}

/** One colour an expert, as far apart as so many can be. */
function colour(expert, num) {
  return `hsl(${Math.round((expert * 360) / num)} 65% 48%)`;
}

function cut(text) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 40 ? `${line.slice(0, 39)}…` : line;
}
