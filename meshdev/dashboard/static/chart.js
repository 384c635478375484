// A chart of the last five minutes: lines over time, axes with units, and a crosshair by pointer or arrow keys.

import { make, setAttribute, setText, svg } from "./dom.js";
import { clock, NOTHING } from "./format.js";
import { drawSoon } from "./frames.js";
import { CHART_SECONDS } from "./store.js";

const HEIGHT = 150;
const LEFT = 62;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;
const ROWS = 4;
/** Seconds without a point that are a gap in the line. */
const GAP = 3;

/** The next higher number whose quarters are round, too; of bytes a power of two. */
export function roundUp(value, base = 10) {
  const power = base ** Math.floor(Math.log(value) / Math.log(base));
  const steps = base === 10 ? [1, 2, 4, 6, 8, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  return steps.find((step) => step * power >= value * 0.9999) * power;
}

export class TimeChart {
  /** *series*: {key, name} of points; *format* writes a value; *base* as of roundUp; *least* is the lowest top. */
  constructor(parent, history, { title, series, format, base, least }) {
    this.history = history;
    this.series = series;
    this.format = format;
    this.base = base;
    this.least = least;
    this.title = title;
    this.at = null; // seconds before the newest point
    this.speak = false; // what the crosshair shows, once
    this.width = 300;
    this.build(parent);
  }

  build(parent) {
    this.values = this.series.map(() => make("b"));
    this.when = make("span", { class: "quiet" });
    const keys = this.series.map(({ name }, index) => {
      const sample = svg("path", { class: `line line-${index}`, d: "M1 4h20" });
      const drawn = svg("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" }, sample);
      return make("li", {}, drawn, name, this.values[index]);
    });
    this.grid = Array.from({ length: ROWS + 1 }, () => ({
      line: svg("path", { class: "grid" }),
      text: svg("text", { "text-anchor": "end" }),
    }));
    this.minutes = Array.from({ length: 6 }, () => svg("text", { y: HEIGHT - 5 }));
    this.lines = this.series.map((_, index) => svg("path", { class: `line line-${index}` }));
    this.area = svg("path", { class: "area" });
    this.cross = svg("path", { class: "cross" });
    this.dots = this.series.map((_, index) => svg("circle", { class: `dot dot-${index}`, r: 3.5 }));
    this.svg = svg(
      "svg",
      { class: "chart", height: HEIGHT, tabindex: 0, role: "img" },
      ...this.grid.flatMap(({ line, text }) => [line, text]),
      ...this.minutes,
      this.area,
      ...this.lines,
      this.cross,
      ...this.dots,
    );
    this.spoken = make("p", { class: "for-readers", role: "status" });
    const list = make("ul", { class: "keys" }, ...keys);
    const head = make("div", { class: "chart-head" }, make("h3", {}, this.title), this.when, list);
    parent.append(head, this.svg, this.spoken);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.lookAt(null));
    this.svg.addEventListener("blur", () => this.lookAt(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(([entry]) => {
      this.width = Math.max(160, entry.contentRect.width);
      drawSoon(this);
    }).observe(this.svg);
  }

  changed() {
    drawSoon(this);
  }

  lookAt(seconds) {
    this.at = seconds === null ? null : Math.min(CHART_SECONDS, Math.max(0, seconds));
    drawSoon(this);
  }

  point(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    this.lookAt(((this.width - RIGHT - x) / (this.width - LEFT - RIGHT)) * CHART_SECONDS);
  }

  key(event) {
    const step = event.shiftKey ? 30 : 5;
    const wanted = {
      ArrowLeft: () => (this.at ?? 0) + (this.at === null ? 0 : step),
      ArrowRight: () => (this.at ?? step) - step,
      Home: () => CHART_SECONDS,
      End: () => 0,
      Escape: () => null,
    }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    this.lookAt(wanted());
    this.speak = true;
  }

  draw() {
    const points = this.history.points;
    const now = points.at(-1)?.time ?? 0;
    const values = points.flatMap((point) => this.series.map(({ key }) => point[key] ?? 0));
    const top = roundUp(Math.max(this.least, ...values), this.base);
    const x = (time) => LEFT + (1 - (now - time) / CHART_SECONDS) * (this.width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    this.drawAxes(top, y);
    this.lines.forEach((line, index) => setAttribute(line, "d", path(points, this.series[index].key, x, y)));
    setAttribute(this.area, "d", area(points, this.series[0].key, x, y, HEIGHT - BOTTOM));
    this.drawCross(points, now, x, y);
  }

  drawAxes(top, y) {
    setAttribute(this.svg, "viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.grid.forEach(({ line, text }, index) => {
      const value = (top * index) / ROWS;
      setAttribute(line, "d", `M${LEFT} ${y(value).toFixed(1)}H${this.width - RIGHT}`);
      setAttribute(text, "x", LEFT - 6);
      setAttribute(text, "y", (y(value) + 4).toFixed(1));
      setText(text, index === 0 ? "0" : this.format(value));
    });
    this.minutes.forEach((text, index) => {
      const room = this.width - LEFT - RIGHT;
      setAttribute(text, "x", (LEFT + (room * index) / 5).toFixed(1));
      setAttribute(text, "text-anchor", index === 5 ? "end" : index === 0 ? "start" : "middle");
      const written = index === 5 || index % 2 === 0 || room > 420;
      setText(text, index === 5 ? "now" : written ? `−${5 - index} min` : "");
    });
  }

  drawCross(points, now, x, y) {
    const shown = this.at === null ? points.at(-1) : nearest(points, now - this.at);
    this.series.forEach(({ key }, index) => {
      const value = shown?.[key] ?? null;
      setText(this.values[index], value === null ? NOTHING : this.format(value));
      const visible = this.at !== null && value !== null;
      setAttribute(this.dots[index], "cx", visible ? x(shown.time).toFixed(1) : -10);
      setAttribute(this.dots[index], "cy", visible ? y(value).toFixed(1) : -10);
    });
    const crossed = this.at !== null && shown !== undefined;
    setAttribute(this.cross, "d", crossed ? `M${x(shown.time).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}` : "");
    setText(this.when, crossed ? `at ${clock(shown.time, false)}` : "now");
    const text = this.series.map(({ name }, index) => `${name} ${this.values[index].textContent}`).join(", ");
    const label = `${this.title}, the last five minutes. ${crossed ? "There" : "Now"}: ${text}. Arrow keys read other times.`;
    setAttribute(this.svg, "aria-label", label);
    if (this.speak && crossed) setText(this.spoken, `${clock(shown.time, false)}: ${text}`);
    this.speak = false;
  }
}

/** Runs of points without a gap. */
function runs(points, key) {
  const found = [];
  let last = null;
  for (const point of points) {
    if (point[key] === null || point[key] === undefined) {
      last = null;
      continue;
    }
    if (last === null || point.time - last > GAP) found.push([]);
    found.at(-1).push(point);
    last = point.time;
  }
  return found;
}

function path(points, key, x, y) {
  const at = (point) => `${x(point.time).toFixed(1)} ${y(point[key]).toFixed(1)}`;
  return runs(points, key)
    .map((run) => `M${run.map(at).join("L")}`)
    .join("");
}

function area(points, key, x, y, bottom) {
  return runs(points, key)
    .map((run) => {
      const [first, last] = [run[0], run.at(-1)].map((point) => x(point.time).toFixed(1));
      return `${path(run, key, x, y)}L${last} ${bottom}L${first} ${bottom}Z`;
    })
    .join("");
}

function nearest(points, time) {
  let best;
  for (const point of points) {
    if (best === undefined || Math.abs(point.time - time) < Math.abs(best.time - time)) best = point;
  }
  return best;
}
