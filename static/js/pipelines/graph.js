// The graph of a pipeline: phases are cards in columns by their depth; this draws the lines between them and keeps
// them in place. Without it the cards stand in order, which says the same.

const NAMESPACE = "http://www.w3.org/2000/svg";
const NARROW = matchMedia("(max-width: 820px)");

/** Path from the right edge of `a` to the left edge of `b`, or downwards on a narrow screen. */
export function line(a, b, narrow) {
  if (narrow) {
    const [x1, y1, x2, y2] = [a.x + 24, a.y + a.height, b.x + 24, b.y];
    return `M${x1} ${y1}L${x2} ${y2}`;
  }
  const [x1, y1, x2, y2] = [a.x + a.width, a.y + a.height / 2, b.x, b.y + b.height / 2];
  const bend = Math.max((x2 - x1) / 2, 12);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

function draw(graph) {
  const svg = graph.querySelector("[data-graph-lines]");
  const frame = graph.getBoundingClientRect();
  const nodes = new Map([...graph.querySelectorAll("[data-node]")].map((node) => [node.dataset.node, node]));
  const rows = new Map();
  for (const node of nodes.values()) {
    const row = (rows.get(node.dataset.depth) ?? 0) + 1;
    rows.set(node.dataset.depth, row);
    node.style.gridColumn = NARROW.matches ? "auto" : node.dataset.depth;
    node.style.gridRow = NARROW.matches ? "auto" : row;
  }
  const place = (node) => {
    const { x, y, width, height } = node.getBoundingClientRect();
    return { x: x - frame.x + graph.scrollLeft, y: y - frame.y, width, height };
  };
  svg.replaceChildren();
  for (const node of nodes.values()) {
    for (const source of node.dataset.sources.split(" ").filter((key) => nodes.has(key))) {
      const path = document.createElementNS(NAMESPACE, "path");
      path.setAttribute("d", line(place(nodes.get(source)), place(node), NARROW.matches));
      path.dataset.drawn = "";
      if (nodes.get(source).classList.contains("tone-succeeded")) path.classList.add("passed");
      svg.append(path);
    }
  }
  svg.style.width = `${graph.scrollWidth}px`;
}

const redraw = () => document.querySelectorAll("[data-graph]").forEach(draw);
redraw();
new ResizeObserver(redraw).observe(document.querySelector("main"));
document.addEventListener("r1:swapped", redraw);
