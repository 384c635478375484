// What the page knows: the last state, requests (bounded), and five minutes of the tunnel.

/** Requests that are kept: the filter looks through them. */
export const KEPT = 1000;
export const CHART_SECONDS = 300;

/** One request with what the filter looks at. */
class Entry {
  constructor(id, key, request) {
    this.id = id;
    this.key = key;
    this.request = request;
    this.lower = null;
  }

  /** Does each of these words, in lower case, stand somewhere in it? */
  has(words) {
    if (words.length === 0) return true;
    this.lower ??= Object.values(this.request)
      .flatMap((value) => (value !== null && typeof value === "object" ? Object.values(value) : [value]))
      .join("\n")
      .toLowerCase();
    return words.every((word) => this.lower.includes(word));
  }
}

/** The newest of those with all of the words, the newest first; and how many have them. */
export function find(entries, words, limit) {
  const found = [];
  let total = 0;
  for (let index = entries.length - 1; index >= 0; index -= 1) {
    if (!entries[index].has(words)) continue;
    total += 1;
    if (found.length < limit) found.push(entries[index]);
  }
  return { found, total };
}

export class RequestStore {
  constructor() {
    this.entries = []; // the oldest first
    this.keys = new Set();
    this.received = 0;
    this.skipped = 0;
  }

  /** Those of one event. One that is here already, since the stream began anew, is left out. */
  add({ requests, skipped }) {
    this.skipped += skipped ?? 0;
    for (const request of requests) {
      const key = `${request.number}/${request.time}`;
      if (this.keys.has(key)) continue;
      this.received += 1;
      this.keys.add(key);
      this.entries.push(new Entry(this.received, key, request));
    }
    if (this.entries.length > KEPT) {
      for (const old of this.entries.splice(0, this.entries.length - KEPT)) this.keys.delete(old.key);
    }
  }


  clear() {
    this.entries = [];
    this.keys.clear();
    this.skipped = 0;
  }
}

/** Points of the charts: {time, to_cluster, to_laptop, rtt_ms}, in the order of their times. */
export class History {
  constructor() {
    this.points = [];
  }

  /** What the session has seen before this page was there. */
  begin(points) {
    this.points = points.slice(-CHART_SECONDS);
  }

  add(time, tunnel) {
    const last = this.points.at(-1);
    if (last !== undefined && time <= last.time) return;
    const trips = tunnel.carriers.filter((each) => each.up && each.rtt_ms !== null).map((each) => each.rtt_ms);
    const rtt = trips.length > 0 ? Math.min(...trips) : null;
    this.points.push({ time, to_cluster: tunnel.to_cluster, to_laptop: tunnel.to_laptop, rtt_ms: rtt });
    const oldest = time - CHART_SECONDS;
    while (this.points.length > 0 && this.points[0].time < oldest) this.points.shift();
  }
}
