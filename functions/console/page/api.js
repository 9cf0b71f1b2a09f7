// Calls of the HTTP API (docs/openapi.json).

import { token } from "./session.js";

/** An answer that is none: `message` is for the user. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The session has ended: the user has to sign in again. */
export class SignedOut extends Error {}

/** There is no connection, or the service does not answer. */
export class Offline extends Error {
  constructor() {
    super("There is no connection to the service.");
  }
}

const path = (parts, ...values) =>
  parts.reduce((text, part, index) => text + encodeURIComponent(values[index - 1]) + part);

/** Return a path below v1 with its values encoded: at`tenants/${tenant}/requests`. */
export const at = (parts, ...values) => `v1/${path(parts, ...values)}`;

export function get(address, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return call(text ? `${address}?${text}` : address, {});
}

export function post(address, body, headers = {}) {
  const content =
    body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } };
  return call(address, { method: "POST", headers, ...content });
}

async function call(address, options, isSecond = false) {
  let bearer, answer;
  try {
    bearer = await token({ isRefused: isSecond });
    if (bearer === null) throw new SignedOut();
    answer = await fetch(address, {
      ...options,
      headers: { ...options.headers, Authorization: `Bearer ${bearer}` },
    });
  } catch (error) {
    if (error instanceof SignedOut) throw error;
    throw new Offline();
  }
  if (answer.status === 401) {
    if (isSecond) throw new SignedOut();
    return call(address, options, true);
  }
  if (answer.status === 204) return null;
  const values = await answer.json().catch(() => ({}));
  if (!answer.ok)
    throw new ApiError(
      answer.status,
      values.detail || values.message || `The service answered with status ${answer.status}.`,
    );
  return values;
}

/** Return a key by which a call that is sent again asks for nothing new. */
export const newKey = () => crypto.randomUUID();
