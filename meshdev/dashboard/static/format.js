// Numbers, times and requests as people read them.

const NARROW = "\u202f"; // between a number and its unit
export const NOTHING = "–";

// Made once: thousands of numbers are written each second.
const FORMATS = [0, 1, 2].map(
  (decimals) => new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }),
);

function digits(value, decimals) {
  return FORMATS[decimals].format(value);
}

/** Two or three significant digits. */
function short(value) {
  if (value === 0 || value >= 100) return digits(value, 0);
  return digits(value, value >= 1 ? 1 : 2);
}

export function count(value) {
  return digits(value, 0);
}

export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Requests a second. */
export function rate(perSecond) {
  return `${perSecond > 0 && perSecond < 0.01 ? "<0.01" : short(perSecond)}/s`;
}

/** A share between 0 and 1. */
export function share(value) {
  const percent = value * 100;
  if (percent > 0 && percent < 0.1) return `<0.1${NARROW}%`;
  return `${digits(percent, percent === 0 || percent >= 10 ? 0 : 1)}${NARROW}%`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value >= 1000) return `${digits(value / 1000, 2)}${NARROW}s`;
  if (value < 1 && value > 0) return `${digits(value * 1000, 0)}${NARROW}µs`;
  return `${digits(value, value >= 10 ? 0 : 1)}${NARROW}ms`;
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value) {
  let power = 0;
  let rest = value;
  while (rest >= 1024 && power < SIZES.length - 1) {
    rest /= 1024;
    power += 1;
  }
  return `${power === 0 ? digits(rest, 0) : short(rest)}${NARROW}${SIZES[power]}`;
}

export function bytesPerSecond(value) {
  return `${bytes(value)}/s`;
}

const pad = (value, width = 2) => String(value).padStart(width, "0");

/** 12:31:05.102, in the time zone of this machine. */
export function clock(seconds, withMilliseconds = true) {
  const date = new Date(seconds * 1000);
  const text = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return withMilliseconds ? `${text}.${pad(date.getMilliseconds(), 3)}` : text;
}

export function dateAndClock(seconds) {
  const date = new Date(seconds * 1000);
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${clock(seconds)}`;
}

/** At most so many characters. */
export function shortened(text, limit) {
  return text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
}
