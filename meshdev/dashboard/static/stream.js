// The session's event stream. Read by fetch: EventSource cannot send the token in a header.

const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 10;
/** A state comes each second; after so long without anything the connection is given up. Seconds. */
const SILENCE = 15;

const KEY = "meshdev-token";

/** The token of the URL, which is taken out of the address bar; after a reload the same one. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    sessionStorage.setItem(KEY, token);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

/** text/event-stream, from chunks of text to (event, data). */
export class EventParser {
  constructor(take) {
    this.take = take;
    this.rest = "";
  }

  feed(chunk) {
    const blocks = (this.rest + chunk).split("\n\n");
    this.rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data !== "") this.take(name, JSON.parse(data));
    }
  }
}

/** What the server says is wrong, as {message, hint}. */
export async function errorOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { message: `the session answered with status ${response.status}`, hint: null };
  }
}

export class Stream {
  /** *listener* has event(name, data) and connection(status), whose kind is connecting, open, waiting or refused. */
  constructor(token, listener) {
    this.token = token;
    this.listener = listener;
    this.wake = () => {};
  }

  /** POST JSON to the session. */
  post(path, body) {
    return fetch(path, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  /** Read, and connect again whenever it breaks, until the token is refused. */
  async run() {
    if (this.token === null) {
      this.listener.connection({ kind: "refused" });
      return;
    }
    let wait = FIRST_WAIT;
    for (;;) {
      let trouble = null;
      try {
        const response = await this.read(() => {
          wait = FIRST_WAIT;
        });
        if (response?.status === 401) {
          this.listener.connection({ kind: "refused" });
          return;
        }
        if (response) trouble = await errorOf(response);
      } catch (error) {
        // A connection that broke, or was given up; anything else is a fault of this page, and shown as one.
        if (!(error instanceof TypeError || error instanceof DOMException)) console.error(error);
      }
      // Several pages do not come back all at once.
      const seconds = wait * (0.8 + 0.4 * Math.random());
      this.listener.connection({ kind: "waiting", until: performance.now() + seconds * 1000, trouble });
      await this.sleep(seconds);
      this.listener.connection({ kind: "connecting" });
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  sleep(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Do not wait any longer. */
  retry() {
    this.wake();
  }

  /** Until the stream ends; the response where it is a refusal. */
  async read(began) {
    const giveUp = new AbortController();
    let timer = 0;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => giveUp.abort(), SILENCE * 1000);
    };
    alive();
    try {
      const headers = { Authorization: `Bearer ${this.token}` };
      const response = await fetch("events", { headers, cache: "no-store", signal: giveUp.signal });
      if (!response.ok) return response;
      this.listener.connection({ kind: "open" });
      const parser = new EventParser((name, data) => this.listener.event(name, data));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return null;
        alive();
        began();
        parser.feed(value);
      }
    } finally {
      clearTimeout(timer);
      giveUp.abort();
    }
  }
}
