// Signing in at another OpenID Connect issuer, by a code and PKCE (OpenID Connect Core 1.0; RFC 7636).

import { readSettings } from "./session.js";

const KEY = "trainyard.signing-in";
const LEFT = "trainyard.signed-out";
const SCOPES = ["openid", "email", "profile", "offline_access"];
const REFUSED = ["invalid_grant", "invalid_token"];

/** The issuer has refused; `code` is its name of the error (RFC 6749, section 5.2). */
class IssuerError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Return where the issuer does what: its endpoints, of which the console may call those of its own origin. */
async function endpoints() {
  const { issuer } = await readSettings();
  const address = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const answer = await fetch(address).catch(() => null);
  const described = answer?.ok ? await answer.json().catch(() => ({})) : {};
  if (!described.authorization_endpoint || !described.token_endpoint)
    throw new Error(`The identity provider does not describe itself at ${address}, or not to this page.`);
  if (new URL(described.token_endpoint).origin !== new URL(issuer).origin)
    throw new Error(`The identity provider gives tokens at another address than ${new URL(issuer).origin}.`);
  return described;
}

const encoded = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
const random = () => encoded(crypto.getRandomValues(new Uint8Array(32)));
const here = () => `${location.origin}${location.pathname}`;

/** Go to the issuer, which comes back to this page; the part of the address after # is kept. */
export async function begin() {
  const [{ client }, described] = await Promise.all([readSettings(), endpoints()]);
  const [state, nonce, verifier] = [random(), random(), random()];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const supported = described.scopes_supported ?? SCOPES.slice(0, 3);
  sessionStorage.setItem(KEY, JSON.stringify({ state, nonce, verifier, hash: location.hash }));
  const address = new URL(described.authorization_endpoint);
  const query = {
    response_type: "code",
    client_id: client,
    redirect_uri: here(),
    scope: SCOPES.filter((scope) => supported.includes(scope)).join(" "),
    state,
    nonce,
    code_challenge: encoded(digest),
    code_challenge_method: "S256",
  };
  // Whoever has signed out here is still signed in there.
  if (sessionStorage.getItem(LEFT)) query.prompt = "login";
  sessionStorage.removeItem(LEFT);
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
  location.assign(address.href);
}

/**
 * Return tokens for the code with which the issuer has sent the user back, and remove it from the address. Return
 * null where no sign-in was begun in this tab.
 */
export async function complete() {
  const query = new URLSearchParams(location.search);
  const begun = JSON.parse(sessionStorage.getItem(KEY) || "null");
  sessionStorage.removeItem(KEY);
  history.replaceState(null, "", `${location.pathname}${begun?.hash ?? location.hash}`);
  if (!begun) return null;
  // Somebody else's sign-in must not become this user's.
  if (begun.state !== query.get("state")) throw new Error("This is the answer to another sign-in. Sign in again.");
  if (query.has("error"))
    throw new Error(`The identity provider has refused: ${query.get("error_description") || query.get("error")}`);
  const values = await tokenOf({
    grant_type: "authorization_code",
    code: query.get("code") ?? "",
    redirect_uri: here(),
    code_verifier: begun.verifier,
  });
  const tokens = tokensOf(values, null);
  if (tokens === null || claimsOf(tokens.id).nonce !== begun.nonce)
    throw new Error("The identity provider has sent no token for this sign-in. Sign in again.");
  return tokens;
}

async function tokenOf(body) {
  const [{ client }, { token_endpoint: address }] = await Promise.all([readSettings(), endpoints()]);
  const answer = await fetch(address, {
    method: "POST",
    body: new URLSearchParams({ client_id: client, ...body }),
  });
  const values = await answer.json().catch(() => ({}));
  if (answer.ok) return values;
  const words = values.error_description || values.error || `status ${answer.status}`;
  throw new IssuerError(values.error, `The identity provider has refused: ${words}`);
}

function tokensOf({ id_token: id, refresh_token: next }, refresh) {
  if (typeof id !== "string") return null;
  const { exp, iat } = claimsOf(id);
  // The clocks of issuer and browser may differ.
  return { by: "issuer", id, refresh: next || refresh, until: Date.now() + (exp - iat) * 1000 };
}

/** Return what a token says: it is checked by the API. */
function claimsOf(token) {
  try {
    const text = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (each) => each.charCodeAt(0))));
  } catch {
    return {};
  }
}

/** Return new tokens, or null where the session has ended; rejects where neither can be found out. */
export async function renew({ refresh }) {
  try {
    return tokensOf(await tokenOf({ grant_type: "refresh_token", refresh_token: refresh }), refresh);
  } catch (error) {
    if (REFUSED.includes(error.code)) return null;
    throw error;
  }
}

/** Ask for the user's name again at the next sign-in in this tab. */
export const leave = () => sessionStorage.setItem(LEFT, "true");

/** Let go of a session at the issuer, where it can be asked to (RFC 7009). */
export async function revoke({ refresh }) {
  const [{ client, issuer }, { revocation_endpoint: address }] = await Promise.all([readSettings(), endpoints()]);
  if (address && new URL(address).origin === new URL(issuer).origin)
    await fetch(address, {
      method: "POST",
      body: new URLSearchParams({ client_id: client, token: refresh, token_type_hint: "refresh_token" }),
    });
}
