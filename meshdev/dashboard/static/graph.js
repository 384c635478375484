// The picture of workloads and calls: SVG elements, and what of them has changed. Where they stand is decided in
// layout.js; pointer, keys and zoom are in topology.js.

import { setAttribute, setText, svg } from "./dom.js";
import { milliseconds, rate, share, shortened } from "./format.js";
import { edgeKey, HEIGHT, Layout, WIDTH } from "./layout.js";

/** With more calls than this, their figures are written beside them only where somebody looks. */
const LABELLED = 40;
const CHARACTERS = 18;
const TWEEN_MS = 250;
/** With more, they change places at once. */
const TWEENED = 80;

const RADIUS = { laptop: 3, address: HEIGHT / 2 };

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function isIntercepted(node) {
  return node.intercepts.length > 0;
}

/** deployment · 2/2 */
export function subtitle(node) {
  if (node.kind === "address") return "outside client";
  return node.total === null ? node.kind : `${node.kind} · ${node.ready}/${node.total}`;
}

/** Above the line: rate and median time. */
function figures(edge) {
  return `${rate(edge.rate)} · ${milliseconds(edge.p50_ms)}`;
}

/** Below it. */
export function errors(edge) {
  return edge.errors > 0 ? `✕ ${share(edge.errors)}` : "";
}

/** In half pixels: most changes of a rate change nothing. */
function strokeWidth(edge) {
  return Math.min(4, 1 + Math.round(2 * Math.log10(1 + edge.rate)) / 2);
}

export class Graph {
  constructor(root) {
    this.layout = new Layout();
    this.nodes = new Map(); // id → {node, element, at, incoming, outgoing}
    this.edges = new Map(); // key → {edge, path, label}
    this.size = { width: 0, height: 0 };
    this.down = false;
    this.across = 2;
    this.tween = null;
    this.bends = () => []; // points at which a call passes by layers
    this.edgeLayer = svg("g", { class: "edges", "aria-hidden": "true" });
    this.labelLayer = svg("g", { class: "labels", "aria-hidden": "true" });
    this.nodeLayer = svg("g", { class: "nodes" });
    const arrow = svg("path", { class: "arrow", d: "M0 0 8 4 0 8z" });
    const marker = svg(
      "marker",
      { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
      arrow,
    );
    setAttribute(marker, "markerUnits", "userSpaceOnUse");
    this.view = svg("g", {}, this.edgeLayer, this.labelLayer, this.nodeLayer);
    root.append(svg("defs", {}, marker), this.view);
  }

  /** Show these. Whether places may have changed. */
  show(nodes, edges) {
    const moved = this.layout.update(nodes, edges);
    this.showNodes(nodes);
    this.showEdges(edges);
    if (moved) this.arrange();
    return moved;
  }

  /** Layers beside each other, or below each other where there is little room. */
  turn(down, across) {
    if (down === this.down && across === this.across) return false;
    this.down = down;
    this.across = across;
    this.arrange(false);
    return true;
  }

  showNodes(nodes) {
    const ids = new Set(nodes.map((node) => node.id));
    for (const [id, item] of this.nodes) {
      if (!ids.has(id)) {
        item.element.remove();
        this.nodes.delete(id);
      }
    }
    for (const node of nodes) {
      let item = this.nodes.get(node.id);
      if (item === undefined) {
        item = { node, element: nodeElement(node), at: null, incoming: [], outgoing: [] };
        this.nodes.set(node.id, item);
        this.nodeLayer.append(item.element);
      }
      item.node = node;
      item.incoming = [];
      item.outgoing = [];
      updateNode(item.element, node);
    }
  }

  showEdges(edges) {
    const keys = new Set(edges.map(edgeKey));
    for (const [key, item] of this.edges) {
      if (!keys.has(key)) {
        item.path.remove();
        item.label.remove();
        this.edges.delete(key);
      }
    }
    setAttribute(this.labelLayer, "data-few", edges.length > LABELLED ? null : "");
    for (const edge of edges) {
      const from = this.nodes.get(edge.from);
      const to = this.nodes.get(edge.to);
      if (from === undefined || to === undefined) continue;
      from.outgoing.push(edge);
      to.incoming.push(edge);
      const key = edgeKey(edge);
      let item = this.edges.get(key);
      if (item === undefined) {
        const label = svg("text", {}, svg("tspan"), svg("tspan"));
        item = { edge, path: svg("path", { "marker-end": "url(#arrow)" }), label };
        this.edges.set(key, item);
        this.edgeLayer.append(item.path);
        this.labelLayer.append(item.label);
        if (from.at !== null && to.at !== null) this.placeEdge(item);
      }
      item.edge = edge;
      const failing = edge.errors > 0 ? " failing" : "";
      setAttribute(item.path, "class", `edge${failing}${item.lit ? " lit" : ""}`);
      setAttribute(item.path, "stroke-width", strokeWidth(edge));
      setAttribute(item.label, "class", `label${failing}${item.lit ? " lit" : ""}`);
      setText(item.label.firstChild, figures(edge));
      setText(item.label.lastChild, errors(edge));
    }
  }

  /** Those at one node stand out; null: none. */
  light(id) {
    setAttribute(this.view, "data-lit", id === null ? null : "");
    const near = new Set([id]);
    for (const item of this.edges.values()) {
      item.lit = item.edge.from === id || item.edge.to === id;
      item.path.classList.toggle("lit", item.lit);
      item.label.classList.toggle("lit", item.lit);
      if (item.lit) near.add(item.edge.from).add(item.edge.to);
    }
    for (const [key, item] of this.nodes) item.element.classList.toggle("lit", near.has(key));
  }

  arrange(animated = true) {
    const { places, bends, middle, width, height } = this.layout.place(this.down, this.across);
    this.size = { width, height };
    this.bends = (key) => bends(key).map(({ x, y }) => ({ x, y: y + middle }));
    const moves = [];
    for (const [id, item] of this.nodes) {
      const to = places.get(id);
      if (item.at !== null && (item.at.x !== to.x || item.at.y !== to.y)) moves.push([item, item.at, to]);
      else if (item.at === null) this.placeNode(item, to);
    }
    cancelAnimationFrame(this.tween);
    if (!animated || calm.matches || this.nodes.size > TWEENED) this.move(moves, 1);
    else this.animate(moves);
  }

  animate(moves) {
    const start = performance.now();
    const step = (now) => {
      const part = Math.min(1, Math.max(0, (now - start) / TWEEN_MS));
      this.move(moves, part * (2 - part));
      if (part < 1) this.tween = requestAnimationFrame(step);
    };
    step(start);
  }

  move(moves, part) {
    for (const [item, from, to] of moves) {
      this.placeNode(item, { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part });
    }
    for (const item of this.edges.values()) this.placeEdge(item);
  }

  placeNode(item, at) {
    item.at = at;
    setAttribute(item.element, "transform", `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})`);
  }

  placeEdge(item) {
    const from = this.nodes.get(item.edge.from);
    const to = this.nodes.get(item.edge.to);
    const curves = this.down ? [curveDown(from.at, to.at)] : this.curvesRight(item.edge, from.at, to.at);
    setAttribute(item.path, "d", drawn(curves));
    // Where many leave the same node their figures stand near the other end, and the other way round.
    const leaves = from.outgoing.length >= to.incoming.length;
    const middle = bezier(...curves.at(leaves ? -1 : 0), leaves ? 0.56 : 0.44);
    for (const [line, dy] of [[item.label.firstChild, -5], [item.label.lastChild, 14]]) {
      setAttribute(line, "x", middle.x.toFixed(1));
      setAttribute(line, "y", (middle.y + dy).toFixed(1));
    }
    setAttribute(item.label, "data-behind", this.edges.size <= LABELLED && this.covered(middle) ? "" : null);
  }

  /** Whether a node stands where figures would. */
  covered({ x, y }) {
    return [...this.nodes.values()].some(
      ({ at }) => at !== null && x > at.x - 20 && x < at.x + WIDTH + 20 && y > at.y - 4 && y < at.y + HEIGHT + 4,
    );
  }

  /** From one to the other, straight through the layers that the call passes by. */
  curvesRight(edge, from, to) {
    const ends = [...this.bends(edgeKey(edge)), { x: to.x, y: to.y + HEIGHT / 2 }];
    const starts = [{ x: from.x, y: from.y + HEIGHT / 2 }, ...ends];
    return ends.map((end, index) => curveRight({ x: starts[index].x + WIDTH, y: starts[index].y }, end));
  }
}

/** Curves one after the other, with straight lines between them. */
function drawn(curves) {
  const point = ({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const curve = ([start, ...others]) => `${point(start)}C${others.map(point).join(" ")}`;
  return `M${curves.map(curve).join("L")}`;
}

function bezier(a, b, c, d, t) {
  const s = 1 - t;
  const mix = (p, q, r, u) => s * s * s * p + 3 * s * s * t * q + 3 * s * t * t * r + t * t * t * u;
  return { x: mix(a.x, b.x, c.x, d.x), y: mix(a.y, b.y, c.y, d.y) };
}

function curveRight(start, end) {
  const bend = end.x > start.x ? Math.max(36, (end.x - start.x) / 2) : 70;
  return [start, { x: start.x + bend, y: start.y }, { x: end.x - bend, y: end.y }, end];
}

function curveDown(from, to) {
  const start = { x: from.x + WIDTH / 2, y: from.y + HEIGHT };
  const end = { x: to.x + WIDTH / 2, y: to.y };
  const bend = end.y > start.y ? Math.max(24, (end.y - start.y) / 2) : 50;
  return [start, { x: start.x, y: start.y + bend }, { x: end.x, y: end.y - bend }, end];
}

function nodeElement(node) {
  return svg(
    "g",
    { class: "node", role: "button", tabindex: -1, "data-id": node.id },
    svg("rect", { class: "node-box", width: WIDTH, height: HEIGHT, rx: RADIUS[node.kind] ?? 8 }),
    svg("text", { class: "node-name", x: 14, y: 20 }),
    svg("text", { class: "node-kind", x: 14, y: 36 }),
    svg("path", { class: "node-mark", d: "" }),
  );
}

// At the right: a laptop; or an arrow that turns off, for what is intercepted.
const LAPTOP = "M130 16h14v9h-14zM127 28h20";
const TURN = "M128 16h7a5 5 0 0 1 5 5v10m-4-4 4 4 4-4";

function updateNode(element, node) {
  const [box, name, kind, mark] = element.children;
  const intercepted = isIntercepted(node);
  const kindClass = node.kind in RADIUS ? node.kind : "workload";
  setAttribute(box, "class", `node-box ${kindClass}${intercepted ? " intercepted" : ""}`);
  const marked = intercepted || node.kind === "laptop";
  setText(name, shortened(node.name, marked ? CHARACTERS - 4 : CHARACTERS));
  setText(kind, subtitle(node));
  setAttribute(mark, "d", node.kind === "laptop" ? LAPTOP : intercepted ? TURN : "");
}
