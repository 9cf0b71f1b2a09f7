// Calls of the HTTP API (docs/openapi.json).

import { isSignedIn, sessionNumber, token } from "./session.js";

const SECONDS_MAX = 35; // the API answers within 30

/** An answer that is none: `message` is for the user; `retryAfter` seconds, where the service says so. */
export class ApiError extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

/** The session has ended: the user has to sign in again. */
export class SignedOut extends Error {
  constructor() {
    super("Your session has ended: sign in again.");
  }
}

/** There is no connection, or the service does not answer. */
export class Offline extends Error {
  constructor() {
    super("There is no connection to the service.");
  }
}

let view = new AbortController();
let signedOut = () => {};

/** Let go of what the last view has asked for and not got yet. */
export function leaveView() {
  view.abort();
  view = new AbortController();
}

/** Call this when a session has ended. */
export function onSignedOut(listener) {
  signedOut = listener;
}

/** Return a path below v1 with its values encoded: at`tenants/${tenant}/requests`. */
export function at(parts, ...values) {
  // Such parts are not encoded, but resolved: they would name another address.
  if (values.some((value) => /^\.*$/.test(value))) throw new ApiError(404, "There is nothing at this address.");
  return `v1/${parts.reduce((text, part, index) => text + encodeURIComponent(values[index - 1]) + part)}`;
}

export function get(address, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return call(text ? `${address}?${text}` : address, { signal: view.signal });
}

export function post(address, body, headers = {}) {
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  return call(address, { method: "POST", headers: { ...type, ...headers }, ...content });
}

async function call(address, options, { isSecond = false, session = sessionNumber() } = {}) {
  if (!isSignedIn()) throw new SignedOut();
  const bearer = await token({ isRefused: isSecond }).catch(() => {
    throw new Offline();
  });
  const answer = bearer === null ? { status: 401 } : await fetched(address, options, bearer);
  // Whoever has signed in since is told nothing of it.
  if (session !== sessionNumber()) throw new SignedOut();
  if (answer.status === 401) {
    if (bearer !== null && !isSecond) return call(address, options, { isSecond: true, session });
    signedOut();
    throw new SignedOut();
  }
  if (answer.status === 204) return null;
  const values = await answer.json().catch(() => ({}));
  if (answer.ok) return values;
  const wait = Number(answer.headers.get("Retry-After")) || null;
  const words = values.detail || values.message || `The service answered with status ${answer.status}.`;
  throw new ApiError(answer.status, words, wait);
}

async function fetched(address, options, bearer) {
  const timeout = AbortSignal.timeout(SECONDS_MAX * 1000);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  try {
    return await fetch(address, {
      ...options,
      signal,
      headers: { ...options.headers, Authorization: `Bearer ${bearer}` },
    });
  } catch {
    throw new Offline();
  }
}

const keys = new Map();

/** Forget what belongs to the user who has signed out. */
export const forget = () => keys.clear();

/**
 * Post what may happen once only: until it is answered, the same call of the same thing has the same key, however
 * often the user tries.
 */
export async function postOnce(address, body) {
  const name = `${address} ${JSON.stringify(body)}`;
  if (!keys.has(name)) keys.set(name, crypto.randomUUID());
  try {
    const answer = await post(address, body, { "Idempotency-Key": keys.get(name) });
    keys.delete(name);
    return answer;
  } catch (error) {
    if (error instanceof ApiError && error.status < 500) keys.delete(name);
    throw error;
  }
}
