// The table of requests: the newest first, held while somebody looks at it closely.

import { byId, Keyed, make, setAttribute, setHidden, setText } from "./dom.js";
import { drawSoon } from "./frames.js";
import { clock, count, milliseconds, NOTHING } from "./format.js";
import { find } from "./store.js";
import { asked, client, isError, servedBy, why } from "./words.js";

/** Rows of the table; the filter looks through all that are kept. */
export const SHOWN = 100;

function level(request) {
  if (isError(request)) return "failed";
  return (request.status ?? 0) >= 400 ? "warning" : "ok";
}

function cell(name, content, title = null) {
  return make("td", { role: "cell", class: `c-${name}`, title }, content);
}

/** A request does not change: its row is made once. */
function row(entry) {
  const request = entry.request;
  const path = make("button", { type: "button", class: "open", tabindex: "-1" }, asked(request));
  const status = make("span", { class: "status", "data-level": level(request) });
  if (isError(request)) status.append(make("span", { "aria-hidden": "true", class: "mark-error" }, "✕"));
  status.append(request.status ? String(request.status) : NOTHING);
  const served = make("span", { class: "badge served", "data-served": request.served_by }, servedBy(request));
  const element = make(
    "tr",
    { role: "row", "data-id": entry.id },
    cell("time", clock(request.time)),
    cell("from", client(request), request.source?.address),
    cell("method", request.method ?? request.protocol ?? ""),
    cell("path", path, request.path),
    cell("status", status),
    cell("took", milliseconds(request.duration_ms)),
    cell("to", served, servedBy(request)),
    cell("why", why(request), request.reason),
  );
  element.entry = entry;
  return element;
}

export class RequestsView {
  /** *open* shows the details of an entry. */
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.words = [];
    this.paused = false;
    this.hovered = false;
    this.selected = null;
    this.current = null; // the row that Tab reaches
    this.frozen = null; // what is shown while the table is held
    this.list = new Keyed(byId("rows"), row, () => {});
    this.frame = byId("table-frame");
    this.listen();
  }

  listen() {
    const rows = byId("rows");
    rows.addEventListener("click", (event) => this.choose(event.target.closest("tr")));
    rows.addEventListener("keydown", (event) => this.key(event));
    rows.addEventListener("focusin", (event) => {
      this.reach(event.target.closest("tr"));
      drawSoon(this);
    });
    rows.addEventListener("focusout", () => drawSoon(this));
    this.frame.addEventListener("pointerenter", (event) => this.hover(event.pointerType === "mouse"));
    this.frame.addEventListener("pointerleave", () => this.hover(false));
    byId("filter").addEventListener("input", (event) => this.filter(event.target.value));
    byId("pause").addEventListener("click", () => this.pause(!this.paused));
    byId("clear").addEventListener("click", () => this.clear());
  }

  changed() {
    drawSoon(this);
  }

  filter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    drawSoon(this);
  }

  /** As if somebody had typed it. */
  setFilter(text) {
    byId("filter").value = text;
    this.filter(text);
  }

  pause(paused) {
    this.paused = paused;
    setAttribute(byId("pause"), "aria-pressed", paused);
    setText(byId("pause"), paused ? "Resume" : "Pause");
    drawSoon(this);
  }

  clear() {
    this.store.clear();
    this.frozen = null;
    drawSoon(this);
  }

  hover(hovered) {
    this.hovered = hovered;
    drawSoon(this);
  }

  get held() {
    return this.paused || this.hovered || byId("rows").contains(document.activeElement);
  }

  choose(element) {
    if (element === null) return;
    this.reach(element);
    this.open(element.entry);
  }

  /** Mark the row whose details are shown. */
  select(entry) {
    this.selected = entry?.id ?? null;
    drawSoon(this);
  }

  /** Back from the details, to the row that they were of or what stands in its place. */
  focus(entry) {
    const element = (entry && this.list.elements.get(entry.id)) ?? this.list.parent.firstElementChild;
    (element?.querySelector(".open") ?? byId("filter")).focus();
  }

  reach(element) {
    if (this.current === element) return;
    this.current?.querySelector(".open").setAttribute("tabindex", "-1");
    this.current = element;
    element?.querySelector(".open").setAttribute("tabindex", "0");
    drawSoon(this);
  }

  key(event) {
    const rows = byId("rows");
    const here = event.target.closest("tr");
    const target = {
      ArrowDown: () => here.nextElementSibling,
      ArrowUp: () => here.previousElementSibling,
      Home: () => rows.firstElementChild,
      End: () => rows.lastElementChild,
    }[event.key]?.();
    if (target === undefined) return;
    event.preventDefault();
    target?.querySelector(".open").focus();
  }

  draw() {
    const held = this.held;
    if (!held) this.frozen = null;
    // A copy: what is looked at stays, however many newer ones replace it in the store.
    else this.frozen ??= { entries: [...this.store.entries], received: this.store.received };
    const { found, total } = find(this.frozen?.entries ?? this.store.entries, this.words, SHOWN);
    this.list.show(found.map((entry) => [entry.id, entry]));
    if (this.current === null || !this.current.isConnected) this.reach(byId("rows").firstElementChild);
    for (const element of byId("rows").querySelectorAll("[aria-current]")) {
      if (element.entry.id !== this.selected) element.removeAttribute("aria-current");
    }
    setAttribute(this.list.elements.get(this.selected) ?? make("i"), "aria-current", "true");
    this.drawTexts(found.length, total, held ? this.store.received - this.frozen.received : 0);
  }

  drawTexts(shown, total, behind) {
    const parts = [];
    if (total > 0) parts.push(shown < total ? `${count(shown)} of ${count(total)}` : count(total));
    if (this.store.skipped > 0) parts.push(`${count(this.store.skipped)} more were too many to show`);
    setText(byId("requests-count"), parts.join(" · "));
    // Beside the number, where it moves nothing: the pointer may be on a row.
    const how = this.paused ? "Paused" : "Held while you look";
    setText(byId("held"), behind > 0 ? `${how}: ${count(behind)} newer` : how);
    setHidden(byId("held"), !this.held);
    const empty = byId("requests-empty");
    setHidden(empty, shown > 0);
    setText(
      empty,
      this.words.length > 0 && this.store.entries.length > 0
        ? "No request has all of these words."
        : "No requests yet. What the pods of your intercepts get appears here.",
    );
  }
}
