// The page: the stream's events go to the views, each of which draws itself when something of its own has changed.

import { TimeChart } from "./chart.js";
import { DetailPanel } from "./detail.js";
import { byId } from "./dom.js";
import { bytesPerSecond, milliseconds } from "./format.js";
import { Header } from "./header.js";
import { HealthView } from "./health.js";
import { InterceptsView } from "./intercepts.js";
import { RequestsView } from "./requests.js";
import { History, RequestStore } from "./store.js";
import { Stream, takeToken } from "./stream.js";
import { Topology } from "./topology.js";

const store = new RequestStore();
const past = new History();

const panel = new DetailPanel((entry) => {
  requests.select(null);
  requests.focus(entry);
});
const requests = new RequestsView(store, (entry) => {
  requests.select(entry);
  panel.show(entry);
});
const topology = new Topology((node) => {
  // As requests have it: a workload without its namespace, which stands behind an @.
  requests.setFilter(node.kind === "laptop" || node.kind === "address" ? node.name : node.id.split("@")[0]);
  byId("filter").focus();
});
const charts = [
  new TimeChart(byId("throughput"), past, {
    title: "Throughput",
    series: [
      { key: "to_cluster", name: "to cluster" },
      { key: "to_laptop", name: "to laptop" },
    ],
    format: bytesPerSecond,
    base: 1024,
    least: 1024,
  }),
  new TimeChart(byId("round-trip"), past, {
    title: "Round trip",
    series: [{ key: "rtt_ms", name: "heartbeat" }],
    format: milliseconds,
    base: 10,
    least: 4,
  }),
];

const stream = new Stream(takeToken(), {
  event(name, data) {
    handlers[name]?.(data);
  },
  connection(connection) {
    header.setConnection(connection);
  },
});
const header = new Header(() => stream.retry());
const intercepts = new InterceptsView((path, body) => stream.post(path, body));
const health = new HealthView();

const handlers = {
  state(state) {
    for (const view of [header, topology, intercepts, health]) view.setState(state);
    past.add(state.time, state.tunnel);
    for (const chart of charts) chart.changed();
  },
  history({ points }) {
    past.begin(points);
    for (const chart of charts) chart.changed();
  },
  requests(found) {
    store.add(found);
    requests.changed();
  },
};

// The URL of a later `meshdev dashboard` on the same port: only its fragment differs, so nothing is loaded by itself.
addEventListener("hashchange", () => {
  if (location.hash.includes("token=")) location.reload();
});
// A computer that wakes up, or a tab that is looked at again, does not wait for its turn.
for (const name of ["online", "visibilitychange"]) {
  (name === "online" ? window : document).addEventListener(name, () => document.hidden || stream.retry());
}

requests.changed();
for (const chart of charts) chart.changed();
stream.run();
