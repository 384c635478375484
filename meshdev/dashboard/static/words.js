// What requests, nodes and checks are called, and why a request went where it went.

import { NOTHING } from "./format.js";

/** Who asked: the workload, else the address. */
export function client(request) {
  return request.source?.workload ?? request.source?.address ?? NOTHING;
}

/** Who answered, in a word or two. */
export function servedBy(request) {
  switch (request.served_by) {
    case "laptop":
      return request.holder ?? "laptop";
    case "original":
    case "fallback":
      return request.target ?? "the app";
    case "meshdev":
      return "meshdev";
    default:
      return request.served_by ?? NOTHING;
  }
}

/** The column of short reasons. */
export function why(request) {
  return request.reason ?? (request.served_by === "laptop" ? "matched" : "");
}

/** Sentences for the side panel. */
export function explanation(request) {
  const app = request.target ?? "the app";
  const reason = request.reason;
  switch (request.served_by) {
    case "laptop":
      return `An intercept matched, so the local program of ${request.holder ?? "its holder"} answered.`;
    case "original":
      return `${app} answered in the cluster, as without meshdev${reason ? `: ${reason}.` : "."}`;
    case "fallback":
      return `An intercept matched, but the local program could not be reached, so ${app} answered in the cluster${
        reason ? ` (${reason})` : ""
      }.`;
    case "meshdev":
      return `The sidecar answered with an error${reason ? `: ${reason}.` : "."}`;
    default:
      return reason ?? "";
  }
}

/** What a request asked for, where it is not HTTP as well. */
export function asked(request) {
  return request.path ?? request.authority ?? `${request.protocol ?? "tcp"} connection`;
}

export function isError(request) {
  return request.served_by === "meshdev" || (request.status ?? 0) >= 500;
}

export const PHRASES = {
  200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
  301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
  307: "Temporary Redirect", 308: "Permanent Redirect",
  400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
  408: "Request Timeout", 409: "Conflict", 410: "Gone", 413: "Content Too Large", 415: "Unsupported Media Type",
  422: "Unprocessable Content", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
  500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
  504: "Gateway Timeout",
};

const SESSION_STATES = {
  connected: ["ok", "Connected"],
  degraded: ["warning", "Degraded"],
  connecting: ["warning", "Connecting"],
  reconnecting: ["warning", "Reconnecting"],
  disconnected: ["failed", "Disconnected"],
};

/** [level, word] of a session's state. */
export function sessionState(state) {
  return SESSION_STATES[state] ?? ["warning", String(state)];
}

/** A shape for each level, so that colour is not all that tells them apart. */
export const SHAPES = { ok: "✓", warning: "!", failed: "✕", skipped: "–" };

export const LEVELS = { ok: "OK", warning: "Warning", failed: "Failed", skipped: "Not checked" };
