// The side panel: everything that is known of one request.

import { byId, make, setHidden, setText } from "./dom.js";
import { bytes, dateAndClock, milliseconds, NOTHING } from "./format.js";
import { asked, client, explanation, PHRASES } from "./words.js";

const SERVED = { laptop: "the laptop", original: "the app", fallback: "the app, as a fallback", meshdev: "the sidecar" };

/** Label and text by key of inspect's JSON. A key that is not here is shown by its own name. */
const FIELDS = {
  time: ["Time", dateAndClock],
  source: ["Client", (source) => (source.workload ? `${source.workload} (${source.address})` : source.address)],
  namespace: ["Namespace", String],
  target: ["Target", String],
  pod: ["Pod", String],
  protocol: ["Protocol", String],
  method: ["Method", String],
  authority: ["Host", String],
  path: ["Path", String],
  status: ["Status", (status) => (PHRASES[status] ? `${status} ${PHRASES[status]}` : String(status))],
  duration_ms: ["Took", milliseconds],
  request_bytes: ["Request body", bytes],
  response_bytes: ["Response body", bytes],
  served_by: ["Served by", (by) => SERVED[by] ?? by],
  holder: ["Holder", String],
  intercept: ["Intercept", String],
  reason: ["Reason", String],
  trace_id: ["Trace", String],
  span_id: ["Span", String],
  parent_span_id: ["Parent span", String],
  sampled: ["Sampled", (sampled) => (sampled ? "yes" : "no")],
  number: null,
};

function text(key, value) {
  if (value === null || value === undefined) return NOTHING;
  if (FIELDS[key]) return FIELDS[key][1](value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export class DetailPanel {
  /** *closed* is called with the entry that was shown. */
  constructor(closed) {
    this.closed = closed;
    this.entry = null;
    this.element = byId("panel");
    byId("panel-close").addEventListener("click", () => this.close());
    byId("panel-copy").addEventListener("click", () => this.copy());
    document.addEventListener("keydown", (event) => {
      // A dialog above it closes first, by itself.
      if (event.key === "Escape" && this.entry !== null && !document.querySelector("dialog[open]")) this.close();
    });
  }

  show(entry) {
    this.entry = entry;
    const request = entry.request;
    setText(byId("panel-line"), [request.method, asked(request)].filter(Boolean).join(" "));
    setText(byId("panel-why"), explanation(request));
    const keys = [...Object.keys(FIELDS).filter((key) => key in request), ...Object.keys(request)];
    const rows = [...new Set(keys)]
      .filter((key) => FIELDS[key] !== null)
      .map((key) => make("div", {}, make("dt", {}, FIELDS[key]?.[0] ?? key), make("dd", {}, text(key, request[key]))));
    byId("panel-fields").replaceChildren(...rows);
    setText(byId("panel-title"), `Request from ${client(request)}`);
    setText(byId("panel-copy"), "Copy JSON");
    setHidden(this.element, false);
    this.element.scrollTop = 0;
    byId("panel-title").focus({ preventScroll: true });
  }

  async copy() {
    const copied = navigator.clipboard.writeText(JSON.stringify(this.entry.request, null, 2));
    setText(byId("panel-copy"), await copied.then(() => "Copied", () => "Not allowed"));
  }

  close() {
    const entry = this.entry;
    this.entry = null;
    setHidden(this.element, true);
    this.closed(entry);
  }
}
