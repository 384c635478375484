// The header, the summary, and the banner: is this page connected to the session, and the session to the cluster?

import { byId, setAttribute, setHidden, setText } from "./dom.js";
import { drawSoon } from "./frames.js";
import { milliseconds, NOTHING, plural, rate, share } from "./format.js";
import { sessionState, SHAPES } from "./words.js";

const AGAIN =
  "If the command has ended, run meshdev dashboard again and open the URL that it prints; " +
  "without a connection, meshdev connect first.";
const OLD = "The session does not answer: what you see is old";

const REFUSED = {
  level: "failed",
  title: "This page may not read the session",
  text: "Its token is missing or no longer valid. Run meshdev dashboard again, and open the URL that it prints.",
};

export class Header {
  constructor(retry) {
    this.state = null;
    this.connection = { kind: "connecting" };
    this.wasOpen = false;
    this.countdown = 0;
    byId("retry").addEventListener("click", retry);
  }

  setState(state) {
    this.state = state;
    drawSoon(this);
  }

  setConnection(connection) {
    this.connection = connection;
    clearInterval(this.countdown);
    if (connection.kind === "open") this.wasOpen = true;
    if (connection.kind === "waiting") this.countdown = setInterval(() => drawSoon(this), 1000);
    drawSoon(this);
  }

  draw() {
    this.drawSession();
    this.drawSummary();
    this.drawBanner();
  }

  drawSession() {
    const session = this.state?.session;
    for (const name of ["context", "namespace", "holder"]) {
      const element = byId(name);
      setText(element, session?.[name] ?? NOTHING);
      setAttribute(element, "title", session?.[name] ?? null);
    }
    const [level, word] = this.pill();
    setAttribute(byId("state"), "data-level", level);
    setText(byId("state").firstElementChild, SHAPES[level]);
    setText(byId("state-text"), word);
    setText(document.querySelector("title"), `${session ? `${session.namespace} · ` : ""}meshdev · ${word}`);
  }

  pill() {
    switch (this.connection.kind) {
      case "open":
        return this.state === null ? ["skipped", "Connecting…"] : sessionState(this.state.session.state);
      case "refused":
        return ["failed", "No access"];
      default:
        return this.wasOpen ? ["failed", "No connection"] : ["skipped", "Connecting…"];
    }
  }

  drawSummary() {
    const state = this.state;
    if (state === null) return;
    // What a laptop served has come to a workload before: it is counted there.
    const edges = state.edges.filter((edge) => !edge.to.startsWith("laptop/"));
    const total = edges.reduce((sum, edge) => sum + edge.rate, 0);
    const failing = edges.reduce((sum, edge) => sum + edge.rate * edge.errors, 0);
    setText(byId("tile-rate"), rate(total));
    setText(byId("tile-errors"), total > 0 ? share(failing / total) : NOTHING);
    const mine = state.intercepts.filter((each) => each.mine).length;
    setText(byId("tile-intercepts"), `${state.intercepts.length}${mine > 0 ? ` · ${mine} yours` : ""}`);
    const trips = state.tunnel.carriers.filter((each) => each.up && each.rtt_ms !== null).map((each) => each.rtt_ms);
    setText(byId("tile-rtt"), trips.length > 0 ? milliseconds(Math.min(...trips)) : NOTHING);
    const up = state.tunnel.carriers.filter((each) => each.up).length;
    setText(byId("carriers"), `${up} of ${plural(state.tunnel.carriers.length, "carrier")} up`);
  }

  drawBanner() {
    const found = this.banner();
    const element = byId("banner");
    setAttribute(document.body, "data-stale", this.wasOpen && this.connection.kind !== "open" ? "" : null);
    setText(byId("banner-title"), found?.title ?? "");
    setText(byId("banner-text"), found?.text ?? "");
    setAttribute(element, "data-level", found?.level ?? null);
    setHidden(byId("retry"), this.connection.kind !== "waiting");
    setHidden(element, found === null);
  }

  banner() {
    switch (this.connection.kind) {
      case "refused":
        return REFUSED;
      case "waiting": {
        const seconds = Math.max(0, Math.ceil((this.connection.until - performance.now()) / 1000));
        const trouble = this.connection.trouble;
        return {
          level: "warning",
          title: this.wasOpen ? OLD : "The session does not answer",
          text: trouble
            ? `${[trouble.message, trouble.hint].filter(Boolean).join("; ")}. Next attempt in ${seconds} s.`
            : `Next attempt in ${seconds} s. ${AGAIN}`,
        };
      }
      case "connecting":
        return this.wasOpen
          ? { level: "warning", title: OLD, text: `Connecting… ${AGAIN}` }
          : null;
      default:
        return this.notes();
    }
  }

  /** What the session itself has to say. */
  notes() {
    const notes = this.state?.session.notes ?? [];
    if (notes.length === 0) return null;
    const [level] = sessionState(this.state.session.state);
    return { level: level === "ok" ? "note" : level, title: notes[0], text: notes.slice(1).join("\n") };
  }
}
