// Where workloads stand: in layers, callers before those whom they call. Pure.
//
// A place depends on which workloads and calls there are, never on rates, and calls count for as long as both ends
// exist (the last MOST_CALLS of them): a pause in the traffic moves nothing. When something new comes, the others keep
// their order.

export const WIDTH = 156;
export const HEIGHT = 46;
const GAP = 18; // between two of the same layer
const LAYER_GAP = 116;
const DOWN_GAP = 62;
const IDLE_GAP = 36;
const IDLE_ACROSS = 2; // at least, where nothing else takes room
const SUBLAYER_GAP = 28; // a layer with many is broken
const MOST_LAYERS = 9;
const SWEEPS = 8;
/** Calls that are known; there are at most 1,000 at once. */
const MOST_CALLS = 2000;
/** Calls that pass by a layer have a place in it, while there are not more than so many of these. */
const MOST_BENDS = 60;
const BEND = 12; // what it takes of its layer

const SEPARATOR = "\n"; // in no id
export const edgeKey = (edge) => `${edge.from}${SEPARATOR}${edge.to}`;

export class Layout {
  constructor() {
    this.calls = new Map(); // key → [from, to], the first seen first
    this.seen = new Map(); // key → in which update it was there last
    this.updates = 0;
    this.rows = []; // the ids of each layer in their order
    this.idle = []; // those that nobody calls and that call nobody
    this.ids = new Set();
    this.bends = new Map(); // key of a call → what stands for it in the layers that it passes by, in their order
    this.bendIds = new Set();
  }

  /** Take what exists now. Whether anything may have another place. */
  update(nodes, edges) {
    const ids = new Set(nodes.map((node) => node.id));
    let changed = ids.size !== this.ids.size || [...ids].some((id) => !this.ids.has(id));
    for (const [key, [from, to]] of this.calls) {
      if (!ids.has(from) || !ids.has(to)) this.calls.delete(key);
    }
    // The busiest first: where calls go in a circle, its least busy one goes back.
    const fresh = edges.filter(
      (edge) => edge.from !== edge.to && ids.has(edge.from) && ids.has(edge.to) && !this.calls.has(edgeKey(edge)),
    );
    for (const edge of fresh.sort((a, b) => b.rate - a.rate)) {
      this.calls.set(edgeKey(edge), [edge.from, edge.to]);
      changed = true;
    }
    this.forget(edges);
    this.ids = ids;
    if (changed) this.arrange();
    return changed;
  }

  /** Forget those that were not seen for the longest time, where there are too many. */
  forget(edges) {
    this.updates += 1;
    for (const edge of edges) this.seen.set(edgeKey(edge), this.updates);
    const surplus = this.calls.size - MOST_CALLS;
    if (surplus > 0) {
      const oldest = [...this.calls.keys()].sort((a, b) => this.seen.get(a) - this.seen.get(b));
      for (const key of oldest.slice(0, surplus)) this.calls.delete(key);
    }
    for (const key of this.seen.keys()) {
      if (!this.calls.has(key)) this.seen.delete(key);
    }
  }

  arrange() {
    const layers = this.layers();
    const former = new Map([...this.rows, this.idle].flat().map((id, index) => [id, index]));
    const rows = [];
    this.idle = [];
    this.bend(layers);
    for (const id of [...this.ids, ...this.bendIds]) {
      if (layers.has(id)) (rows[layers.get(id)] ??= []).push(id);
      else this.idle.push(id);
    }
    this.rows = rows.filter((row) => row.length > 0);
    this.idle.sort();
    const known = [...layers.keys()].filter((id) => former.has(id)).length;
    if (known < 0.7 * layers.size) this.sort();
    else this.insert(former);
  }

  /** Layer by id: the longest way from one that nobody calls. Calls that would close a circle do not count. */
  layers() {
    const callees = new Map();
    const callers = new Map();
    const list = (map, id) => map.get(id) ?? map.set(id, []).get(id);
    for (const [from, to] of this.calls.values()) {
      if (reaches(callees, to, from)) continue;
      list(callees, from).push(to);
      list(callers, to).push(from);
    }
    const found = new Map();
    const layer = (id) => {
      let depth = found.get(id);
      if (depth === undefined) {
        depth = Math.max(-1, ...(callers.get(id) ?? []).map(layer)) + 1;
        found.set(id, depth);
      }
      return depth;
    };
    for (const [from, to] of this.calls.values()) {
      layer(from);
      layer(to);
    }
    const deepest = Math.max(0, ...found.values());
    if (deepest >= MOST_LAYERS) {
      for (const [id, depth] of found) found.set(id, Math.floor((depth * MOST_LAYERS) / (deepest + 1)));
    }
    return found;
  }

  /** Give calls that are longer than from one layer to the next a place in each that they pass by. */
  bend(layers) {
    this.bends.clear();
    this.bendIds.clear();
    for (const [key, [from, to]] of this.calls) {
      const passed = Math.max(0, layers.get(to) - layers.get(from) - 1);
      const ids = Array.from({ length: passed }, (_, index) => `${key}${SEPARATOR}${index}`);
      this.bends.set(key, ids);
      for (const id of ids) this.bendIds.add(id);
    }
    if (this.bendIds.size > MOST_BENDS) {
      this.bends.clear();
      this.bendIds.clear();
      return;
    }
    for (const [key, [from]] of this.calls) {
      this.bends.get(key).forEach((id, index) => layers.set(id, layers.get(from) + 1 + index));
    }
  }

  neighbours() {
    const found = new Map([...this.ids, ...this.bendIds].map((id) => [id, []]));
    for (const [key, [from, to]] of this.calls) {
      const chain = [from, ...(this.bends.get(key) ?? []), to];
      for (let index = 1; index < chain.length; index += 1) {
        found.get(chain[index - 1]).push(chain[index]);
        found.get(chain[index]).push(chain[index - 1]);
      }
    }
    return found;
  }

  /** Order all anew: each near the middle of its neighbours, forth and back a few times (Sugiyama, 1981). */
  sort() {
    for (const row of this.rows) row.sort();
    const neighbours = this.neighbours();
    for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
      const rows = sweep % 2 === 0 ? this.rows : [...this.rows].reverse();
      const place = this.places();
      for (const row of rows) {
        const middle = new Map(row.map((id) => [id, mean(neighbours.get(id), place) ?? place.get(id)]));
        row.sort((a, b) => middle.get(a) - middle.get(b) || compare(a, b));
        row.forEach((id, index) => place.set(id, (index + 0.5) / row.length));
      }
    }
  }

  /** Keep the order of those that were there; put each new one near its neighbours. */
  insert(former) {
    const neighbours = this.neighbours();
    const rank = (id) => former.get(id) ?? Infinity;
    for (const row of this.rows) row.sort((a, b) => rank(a) - rank(b) || compare(a, b));
    const place = this.places();
    this.rows = this.rows.map((row) => {
      const kept = row.filter((id) => former.has(id));
      for (const id of row.filter((one) => !former.has(one))) {
        const wanted = mean(neighbours.get(id), place) ?? 1;
        kept.splice(Math.round(wanted * kept.length), 0, id);
      }
      return kept;
    });
  }

  /** Between 0 and 1 within its row. */
  places() {
    return new Map(this.rows.flatMap((row) => row.map((id, index) => [id, (index + 0.5) / row.length])));
  }

  /** The upper left corner of each, where the call with a key passes, and the size of all: layers beside each other, or
   * (*down*) below each other with so many *across*. */
  place(down, across) {
    const most = down ? across : Math.max(6, Math.ceil(Math.sqrt(this.ids.size)));
    const rows = down ? this.rows.map((row) => row.filter((id) => this.ids.has(id))) : this.rows;
    const columns = rows.flatMap((row) => broken(row, most));
    const breadthOf = (id) => (this.bendIds.has(id) ? BEND : down ? WIDTH : HEIGHT);
    const breadth = (ids) => ids.reduce((sum, id) => sum + breadthOf(id) + GAP, -GAP);
    const widest = Math.max(0, ...columns.map((column) => breadth(column.ids)));
    const places = new Map();
    let along = 0;
    columns.forEach(({ ids, first }, index) => {
      if (index > 0) along += first ? (down ? DOWN_GAP : LAYER_GAP) : down ? GAP : SUBLAYER_GAP;
      let offset = (widest - breadth(ids)) / 2;
      for (const id of ids) {
        places.set(id, down ? { x: offset, y: along } : { x: along, y: offset });
        offset += breadthOf(id) + GAP;
      }
      along += down ? HEIGHT : WIDTH;
    });
    const size = this.placeIdle(places, down ? { width: widest, height: along } : { width: along, height: widest });
    const bends = (key) => (down ? [] : (this.bends.get(key) ?? []).map((id) => places.get(id)));
    return { places, bends, middle: BEND / 2, ...size };
  }

  /** Below all others. */
  placeIdle(places, { width, height }) {
    if (this.idle.length === 0) return { width, height };
    const step = WIDTH + GAP;
    const room = Math.max(width, Math.min(this.idle.length, IDLE_ACROSS) * step - GAP);
    const across = Math.max(1, Math.floor((room + GAP) / step));
    const top = height === 0 ? 0 : height + IDLE_GAP;
    this.idle.forEach((id, index) => {
      places.set(id, { x: (index % across) * step, y: top + Math.floor(index / across) * (HEIGHT + GAP) });
    });
    return { width: room, height: top + Math.ceil(this.idle.length / across) * (HEIGHT + GAP) - GAP };
  }
}

function reaches(callees, from, wanted) {
  const seen = new Set([from]);
  const waiting = [from];
  while (waiting.length > 0) {
    const id = waiting.pop();
    if (id === wanted) return true;
    for (const next of callees.get(id) ?? []) {
      if (!seen.has(next)) {
        seen.add(next);
        waiting.push(next);
      }
    }
  }
  return false;
}

function mean(ids, place) {
  const known = ids.map((id) => place.get(id)).filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** Pieces of about the same size, none of more than *most*. */
function broken(ids, most) {
  if (ids.length === 0) return [];
  const pieces = Math.ceil(ids.length / most);
  const size = Math.ceil(ids.length / pieces);
  return Array.from({ length: pieces }, (_, index) => ({
    ids: ids.slice(index * size, (index + 1) * size),
    first: index === 0,
  }));
}
