// The topology's card: pointer, keys, zoom, and what is known of the workload that somebody looks at.

import { byId, make, setAttribute, setHidden, setText } from "./dom.js";
import { drawSoon } from "./frames.js";
import { count, milliseconds, plural, rate } from "./format.js";
import { errors, Graph, isIntercepted, subtitle } from "./graph.js";
import { HEIGHT, WIDTH } from "./layout.js";

const MARGIN = 18;
const SMALLEST = 0.12;
const LARGEST = 2;
const LARGEST_FIT = 1.1;
/** Texts smaller than this say nothing any more. */
const READABLE = 0.45;
/** Below so many pixels layers stand below each other. */
const NARROW = 560;
/** Of the frame, in pixels: as high as the graph needs. */
const LOWEST = 200;
const HIGHEST = { true: 640, false: 420 };
/** Calls in a list: of one workload, and of all. */
const LISTED = 6;
const OVERVIEW = 4;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class Topology {
  /** *filter* shows the requests of one workload. */
  constructor(filter) {
    this.filter = filter;
    this.root = byId("graph");
    this.graph = new Graph(this.root);
    this.state = null;
    this.fresh = false;
    this.fitted = true; // until somebody moves or zooms
    this.scale = 1;
    this.height = 0;
    this.offset = { x: MARGIN, y: MARGIN };
    this.hovered = null;
    this.focused = null;
    this.kept = null;
    this.lit = null;
    this.current = null; // the node that Tab reaches
    this.detailed = "";
    this.listen();
  }

  listen() {
    const root = this.root;
    const idAt = (event) => event.target.closest?.(".node")?.dataset.id ?? null;
    root.addEventListener("pointerover", (event) => this.look("hovered", idAt(event)));
    root.addEventListener("pointerleave", () => this.look("hovered", null));
    root.addEventListener("focusin", (event) => this.focusOn(idAt(event)));
    root.addEventListener("focusout", () => this.look("focused", null));
    root.addEventListener("keydown", (event) => this.key(event, idAt(event)));
    root.addEventListener("pointerdown", (event) => this.drag(event));
    root.addEventListener("click", (event) => this.keep(idAt(event)));
    root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    byId("zoom-in").addEventListener("click", () => this.zoom(1.25));
    byId("zoom-out").addEventListener("click", () => this.zoom(0.8));
    byId("zoom-fit").addEventListener("click", () => this.fit());
    new ResizeObserver(() => this.resized()).observe(root);
  }

  setState(state) {
    this.state = state;
    this.fresh = true;
    drawSoon(this);
  }

  draw() {
    if (this.fresh) {
      this.fresh = false;
      this.show(this.state);
    }
    if (this.fitted) this.fitScale();
    const { x, y } = this.offset;
    const moved = `translate(${x.toFixed(1)} ${y.toFixed(1)})`;
    setAttribute(this.graph.view, "transform", `${moved} scale(${this.scale.toFixed(3)})`);
    setAttribute(this.root, "data-small", this.scale < READABLE ? "" : null);
    this.drawDetails();
  }

  show(state) {
    this.graph.show(state.nodes, state.edges);
    for (const [id, item] of this.graph.nodes) {
      setAttribute(item.element, "aria-label", this.spoken(item));
      setAttribute(item.element, "aria-pressed", id === this.kept);
    }
    const lost = this.focused !== null && !this.graph.nodes.has(this.focused);
    for (const name of ["hovered", "focused", "kept", "current"]) {
      if (!this.graph.nodes.has(this[name])) this[name] = null;
    }
    if (this.current === null) this.reach(this.order()[0] ?? null);
    if (lost) this.graph.nodes.get(this.current)?.element.focus({ preventScroll: true });
    setHidden(byId("graph-empty"), state.nodes.length > 0);
    const counts = [plural(state.nodes.length, "node"), plural(state.edges.length, "call path")];
    setText(byId("topology-count"), counts.join(", "));
    this.lit = undefined; // new elements have to be lit, too
  }

  // -- what somebody looks at ------------------------------------------------------------------------------------

  get looked() {
    return this.hovered ?? this.focused ?? this.kept;
  }

  look(how, id) {
    if (this[how] === id) return;
    this[how] = id;
    drawSoon(this);
  }

  focusOn(id) {
    if (id === null) return;
    this.reach(id);
    this.reveal(id);
    this.look("focused", id);
  }

  keep(id) {
    if (this.dragged) return;
    this.kept = id === this.kept ? null : id;
    for (const [each, item] of this.graph.nodes) setAttribute(item.element, "aria-pressed", each === this.kept);
    drawSoon(this);
  }

  reach(id) {
    const element = (one) => this.graph.nodes.get(one)?.element;
    element(this.current)?.setAttribute("tabindex", -1);
    this.current = id;
    element(id)?.setAttribute("tabindex", 0);
  }

  /** Ids layer by layer. */
  order() {
    return [...this.graph.layout.rows, this.graph.layout.idle].flat();
  }

  key(event, id) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const zoom = { "+": () => this.zoom(1.25), "-": () => this.zoom(0.8), 0: () => this.fit() }[event.key];
    if (zoom) {
      event.preventDefault();
      zoom();
      return;
    }
    if (id === null) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.dragged = false;
      this.keep(id);
      return;
    }
    const target = this.target(event.key, id);
    if (target === undefined) return;
    event.preventDefault();
    this.graph.nodes.get(target)?.element.focus({ preventScroll: true });
  }

  /** Where a key leads: the nearest that stands in that direction. */
  target(key, id) {
    const order = this.order();
    if (key === "Home") return order[0];
    if (key === "End") return order.at(-1);
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0];
    if (dx === 0 && dy === 0) return undefined;
    const here = this.graph.nodes.get(id).at;
    let best = id;
    let least = Infinity;
    for (const [other, { at }] of this.graph.nodes) {
      const along = (at.x - here.x) * dx + (at.y - here.y) * dy;
      const aside = Math.abs((at.x - here.x) * dy) + Math.abs((at.y - here.y) * dx);
      if (along > 1 && along + 2 * aside < least) {
        least = along + 2 * aside;
        best = other;
      }
    }
    return best;
  }

  /** For screen readers. */
  spoken(item) {
    const { node, incoming, outgoing } = item;
    const parts = [`${node.kind} ${node.name}`];
    if (node.total !== null) parts.push(`${node.ready} of ${node.total} ready`);
    if (isIntercepted(node)) parts.push("intercepted");
    const sum = (edges) => rate(edges.reduce((total, edge) => total + edge.rate, 0));
    if (incoming.length > 0) parts.push(`asked ${sum(incoming)} by ${plural(incoming.length, "caller")}`);
    if (outgoing.length > 0) parts.push(`asks ${sum(outgoing)} of ${outgoing.length}`);
    return parts.join(", ");
  }

  drawDetails() {
    const id = this.looked;
    if (id !== this.lit) {
      this.graph.light(id);
      this.lit = id;
    }
    const item = this.graph.nodes.get(id);
    const shown = item ? [item.node, item.incoming, item.outgoing, this.kept === id] : this.state?.edges;
    const facts = JSON.stringify(shown ?? null);
    if (facts === this.detailed) return;
    this.detailed = facts;
    byId("node-details").replaceChildren(...(item ? this.details(item) : this.overview()));
  }

  /** While nobody looks at a workload: the calls that matter most. */
  overview() {
    const edges = this.state?.edges ?? [];
    const failing = edges.filter((edge) => edge.errors > 0).sort((a, b) => b.rate * b.errors - a.rate * a.errors);
    const path = (edge) => `${this.name(edge.from)} → ${this.name(edge.to)}`;
    return [
      make(
        "div",
        { class: "calls" },
        callTable("Busiest calls", busiest(edges), OVERVIEW, path),
        callTable("Calls with errors", failing, OVERVIEW, path),
      ),
    ];
  }

  name(id) {
    return this.graph.nodes.get(id)?.node.name ?? id;
  }

  details(item) {
    const { node, incoming, outgoing } = item;
    const holds = (each) => `laptop/${each.holder}` === node.id;
    const claims = this.state.intercepts.filter((each) => node.intercepts.includes(each.id) || holds(each));
    const claim = ({ target, holder, match }) =>
      node.kind === "laptop" ? `Intercepts ${target}: ${match}` : `Intercepted by ${holder}: ${match}`;
    const kind = make("span", { class: "quiet" }, subtitle(node));
    const head = make("p", { class: "node-title" }, make("b", {}, node.name), kind);
    if (this.kept === node.id && node.name !== "others") {
      const button = make("button", { type: "button" }, "Show its requests");
      button.addEventListener("click", () => this.filter(node));
      head.append(button);
    }
    return [
      head,
      ...claims.map((each) => make("p", { class: "quiet" }, claim(each))),
      make(
        "div",
        { class: "calls" },
        callTable("Called by", busiest(incoming), LISTED, (edge) => this.name(edge.from)),
        callTable("Calls", busiest(outgoing), LISTED, (edge) => this.name(edge.to)),
      ),
    ];
  }

  // -- zoom ------------------------------------------------------------------------------------------------------

  resized() {
    const { width } = this.root.getBoundingClientRect();
    const across = Math.max(1, Math.floor((width - 2 * MARGIN + 16) / (WIDTH + 16)));
    if (width > 0) this.graph.turn(width < NARROW, across);
    drawSoon(this);
  }

  fit() {
    this.fitted = true;
    drawSoon(this);
  }

  /** All of it, in the middle. */
  fitScale() {
    const { width } = this.frame();
    const size = this.graph.size;
    if (size.width === 0 || width === 0) return;
    const highest = HIGHEST[this.graph.down];
    const scale = Math.min((width - 2 * MARGIN) / size.width, (highest - 2 * MARGIN) / size.height);
    this.scale = clamp(scale, SMALLEST, LARGEST_FIT);
    const height = clamp(Math.ceil(size.height * this.scale) + 2 * MARGIN, LOWEST, highest);
    if (this.height !== height) {
      this.height = height;
      this.root.style.height = `${height}px`;
    }
    this.offset = { x: (width - size.width * this.scale) / 2, y: (height - size.height * this.scale) / 2 };
  }

  frame() {
    return { width: this.root.clientWidth, height: this.root.clientHeight };
  }

  /** By that factor around a point of the frame; without one its middle. */
  zoom(factor, at = null) {
    const { width, height } = this.frame();
    const { x, y } = at ?? { x: width / 2, y: height / 2 };
    const scale = clamp(this.scale * factor, SMALLEST, LARGEST);
    const ratio = scale / this.scale;
    this.offset = { x: x - (x - this.offset.x) * ratio, y: y - (y - this.offset.y) * ratio };
    this.scale = scale;
    this.fitted = false;
    drawSoon(this);
  }

  /** With Ctrl, as pinching does; else the page scrolls. */
  wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = this.root.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY / 300), { x: event.clientX - box.left, y: event.clientY - box.top });
  }

  drag(event) {
    this.dragged = false;
    if (event.button !== 0) return;
    const start = { x: event.clientX - this.offset.x, y: event.clientY - this.offset.y };
    const origin = { x: event.clientX, y: event.clientY };
    const move = (moved) => {
      if (!this.dragged && Math.hypot(moved.clientX - origin.x, moved.clientY - origin.y) < 5) return;
      this.dragged = true;
      this.fitted = false;
      this.offset = { x: moved.clientX - start.x, y: moved.clientY - start.y };
      drawSoon(this);
    };
    const end = new AbortController();
    const stop = () => end.abort();
    window.addEventListener("pointermove", move, { signal: end.signal });
    window.addEventListener("pointerup", stop, { signal: end.signal });
    window.addEventListener("pointercancel", stop, { signal: end.signal });
  }

  /** Bring a node into the frame. */
  reveal(id) {
    const { at } = this.graph.nodes.get(id);
    const { width, height } = this.frame();
    const into = (start, length, room) =>
      start < MARGIN ? MARGIN - start : Math.min(0, room - MARGIN - start - length);
    const dx = into(this.offset.x + at.x * this.scale, WIDTH * this.scale, width);
    const dy = into(this.offset.y + at.y * this.scale, HEIGHT * this.scale, height);
    if (this.fitted || (dx === 0 && dy === 0)) return;
    this.offset = { x: this.offset.x + dx, y: this.offset.y + dy };
    drawSoon(this);
  }
}

const busiest = (edges) => [...edges].sort((a, b) => b.rate - a.rate);

/** The busiest or worst of *edges*, the first *most* as they come. */
function callTable(title, edges, most, name) {
  const rows = edges.slice(0, most).map((edge) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", title: name(edge) }, name(edge)),
      make("td", {}, rate(edge.rate)),
      make("td", {}, milliseconds(edge.p50_ms)),
      make("td", { "data-level": edge.errors > 0 ? "failed" : null }, errors(edge) || "no errors"),
    ),
  );
  if (edges.length > most) {
    rows.push(make("tr", {}, make("td", { colspan: 4 }, `and ${count(edges.length - most)} more`)));
  }
  const caption = make("caption", {}, edges.length > 0 ? title : `${title}: none in the last minute`);
  return make("table", {}, caption, make("tbody", {}, ...rows));
}
