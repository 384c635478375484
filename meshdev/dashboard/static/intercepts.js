// Intercepts of everybody; own ones can be left.

import { byId, Keyed, make, setAttribute, setHidden, setText } from "./dom.js";
import { drawSoon } from "./frames.js";
import { count } from "./format.js";
import { errorOf } from "./stream.js";

function item() {
  const reports = make("ul", { class: "reports" });
  const element = make(
    "li",
    { class: "intercept" },
    make(
      "div",
      { class: "intercept-head" },
      make("h3", { class: "name" }),
      make("span", { class: "badge mode" }),
      make("button", { type: "button", class: "leave" }, "Leave"),
    ),
    make("p", { class: "match" }),
    make(
      "dl",
      { class: "facts" },
      ...["Holder", "Ports", "State", "Pods"].map((name) => make("div", {}, make("dt", {}, name), make("dd"))),
    ),
    make("details", {}, make("summary", {}, "Reports of pods"), reports),
  );
  element.reports = new Keyed(reports, report, updateReport);
  return element;
}

function report() {
  return make(
    "li",
    {},
    make("span", { class: "shape", "aria-hidden": "true" }),
    make("div", {}, make("p", {}, make("code"), make("span", { class: "quiet" })), make("p", { class: "detail" })),
  );
}

const REPORTS = { acked: ["ok", "✓"], nacked: ["failed", "✕"], gone: ["skipped", "–"], joined: ["warning", "…"] };

function updateReport(element, { pod, state, detail }) {
  const [level, shape] = REPORTS[state] ?? ["warning", "?"];
  setAttribute(element, "data-level", level);
  setText(element.firstChild, shape);
  setText(element.querySelector("code"), pod);
  setText(element.querySelector(".quiet"), state);
  setText(element.querySelector(".detail"), detail ?? "");
  setHidden(element.querySelector(".detail"), !detail);
}

function update(element, each) {
  element.dataset.id = each.id;
  const { acked, total } = each.pods;
  setText(element.querySelector(".name"), each.target);
  setAttribute(element.querySelector(".name"), "title", `${each.target} in ${each.namespace}`);
  setText(element.querySelector(".mode"), each.mode);
  setText(element.querySelector(".match"), each.match);
  const facts = [...element.querySelectorAll("dd")];
  setText(facts[0], each.mine ? `${each.holder} (you)` : each.holder);
  setText(facts[1], each.ports.join(", ") || "–");
  setText(facts[2], each.state);
  setText(facts[3], `${count(acked)} of ${count(total)}`);
  setAttribute(facts[3], "data-level", total > 0 && acked === total ? "ok" : "warning");
  setAttribute(element, "data-mine", each.mine ? "" : null);
  const leave = element.querySelector(".leave");
  setHidden(leave, !each.mine);
  setAttribute(leave, "aria-label", `Leave ${each.target}`);
  setHidden(element.querySelector("details"), each.reports.length === 0);
  element.reports.show(each.reports.map((one) => [one.pod, one]));
}

export class InterceptsView {
  /** *post* sends the request to leave one. */
  constructor(post) {
    this.post = post;
    this.intercepts = [];
    this.list = new Keyed(byId("intercepts"), (each) => this.make(each), update);
    this.leaving = null;
    this.waiting = false;
    this.dialog = byId("leave");
    byId("leave-cancel").addEventListener("click", () => this.dialog.close());
    byId("leave-confirm").addEventListener("click", () => this.confirm());
    this.dialog.addEventListener("close", () => this.closed());
  }

  make(each) {
    const element = item();
    element.querySelector(".leave").addEventListener("click", () => this.ask(each.id));
    return element;
  }

  setState(state) {
    this.intercepts = state.intercepts;
    drawSoon(this);
  }

  draw() {
    const mineFirst = [...this.intercepts].sort((a, b) => Number(b.mine) - Number(a.mine));
    const focused = this.list.parent.contains(document.activeElement);
    this.list.show(mineFirst.map((each) => [each.id, each]));
    // What had the focus is gone: Tab goes on from here, not from the page's beginning.
    if (focused && !this.list.parent.contains(document.activeElement)) byId("intercepts-title").focus();
    setHidden(byId("intercepts-empty"), mineFirst.length > 0);
    setText(byId("intercepts-count"), mineFirst.length > 0 ? count(mineFirst.length) : "");
    // It was left elsewhere while the question stood.
    if (this.dialog.open && !this.intercepts.some((each) => each.id === this.leaving)) this.dialog.close();
  }

  ask(id) {
    const each = this.intercepts.find((one) => one.id === id);
    if (each === undefined) return;
    this.leaving = id;
    setText(byId("leave-title"), `Leave ${each.target}?`);
    setHidden(byId("leave-error"), true);
    this.wait(false);
    this.dialog.showModal();
    byId("leave-cancel").focus();
  }

  /** Not disabled, which would take the focus away from it. */
  wait(waiting) {
    this.waiting = waiting;
    setAttribute(byId("leave-confirm"), "aria-disabled", waiting || null);
  }

  async confirm() {
    if (this.waiting) return;
    const id = this.leaving;
    this.wait(true);
    try {
      const response = await this.post("leave", { id });
      if (response.ok) {
        if (this.leaving === id) this.dialog.close();
        return;
      }
      const { message, hint } = await errorOf(response);
      this.failed(id, [message, hint].filter(Boolean).join(". "));
    } catch (error) {
      this.failed(id, `The session does not answer (${error.message}).`);
    }
  }

  failed(id, text) {
    if (this.leaving !== id) return;
    setText(byId("leave-error"), text);
    setHidden(byId("leave-error"), false);
    this.wait(false);
  }

  closed() {
    const row = this.list.elements.get(this.leaving);
    this.leaving = null;
    // The button that asked may be gone with its intercept: the next thing is the list.
    const target = row?.querySelector(".leave") ?? byId("intercepts-title");
    target.focus({ preventScroll: true });
  }
}
