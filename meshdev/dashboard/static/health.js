// The checks: what is wrong comes first.

import { byId, Keyed, make, setAttribute, setHidden, setText } from "./dom.js";
import { drawSoon } from "./frames.js";
import { plural } from "./format.js";
import { LEVELS, SHAPES } from "./words.js";

const ORDER = ["failed", "warning", "ok", "skipped"];

function item() {
  return make(
    "li",
    {},
    make("span", { class: "shape", "aria-hidden": "true" }),
    make(
      "div",
      {},
      make("p", { class: "check" }, make("b"), make("span", { class: "level" })),
      make("p", { class: "detail" }),
      make("p", { class: "hint" }),
    ),
  );
}

function update(element, { check, state, detail, hint }) {
  setAttribute(element, "data-level", state);
  setText(element.firstChild, SHAPES[state] ?? "?");
  const [name, level] = element.querySelector(".check").children;
  setText(name, check);
  setText(level, LEVELS[state] ?? state);
  for (const [kind, text] of [["detail", detail], ["hint", hint]]) {
    const line = element.querySelector(`.${kind}`);
    setText(line, text ?? "");
    setHidden(line, !text);
  }
}

export class HealthView {
  constructor() {
    this.checks = [];
    this.list = new Keyed(byId("health"), item, update);
  }

  setState(state) {
    this.checks = state.health;
    drawSoon(this);
  }

  draw() {
    const sorted = [...this.checks].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
    const seen = new Map(); // several may have the same name
    this.list.show(
      sorted.map((each) => {
        seen.set(each.check, (seen.get(each.check) ?? 0) + 1);
        return [`${each.check} ${seen.get(each.check)}`, each];
      }),
    );
    setHidden(byId("health-empty"), sorted.length > 0);
    const wrong = sorted.filter((each) => each.state === "failed" || each.state === "warning").length;
    setText(byId("health-count"), sorted.length === 0 ? "" : wrong === 0 ? "all well" : plural(wrong, "finding"));
  }
}
