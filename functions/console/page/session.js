// Who is signed in. Tokens stay in this tab, and are gone when it is closed.

const KEY = "trainyard.session";
const EARLY_SECONDS = 60;
const PROVIDERS = { cognito: () => import("./cognito.js"), issuer: () => import("./issuer.js") };

let settings = null;
let tokens = read();
let renewing = null;
let number = 1;

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

/** Be signed in with these tokens: { by, id, access, refresh, until }; with null, nobody is. */
export function keep(next) {
  if (tokens === null && next !== null) number += 1;
  tokens = next;
  if (next) sessionStorage.setItem(KEY, JSON.stringify(next));
  else sessionStorage.removeItem(KEY);
}

/** Return how users of this deployment sign in, and the version of the console (functions/console/app.py). */
export async function readSettings({ isFresh = false } = {}) {
  if (settings === null || isFresh) {
    const answer = await fetch("console/settings.json");
    if (!answer.ok) throw new Error(`The service answered with status ${answer.status}. Load the page again.`);
    settings = await answer.json();
  }
  return settings;
}

export const isSignedIn = () => tokens !== null;

/** Return a number that is another one after each sign-in, and after the user has signed out. */
export const sessionNumber = () => number;

export function signOut() {
  const former = tokens;
  number += 1;
  keep(null);
  // In the background: whoever signs out need not wait for it.
  if (former?.refresh)
    provider(former)
      .then((module) => module.revoke(former))
      .catch(() => {});
}

const provider = ({ by = "cognito" }) => PROVIDERS[by]();

/** Sign in with a token of another issuer: it is checked by the API. */
export function signInWith(token) {
  const compact = token.replace(/\s/g, "");
  if (!/^[\w-]+\.[\w-]+\.[\w-]*$/.test(compact))
    throw new Error("This is not an ID token: it has three parts, separated by dots.");
  keep({ id: compact, refresh: null, until: null });
}

/** Return a valid token, or null where the user has to sign in again; rejects where neither can be found out. */
export async function token({ isRefused = false } = {}) {
  return (await valid(isRefused))?.id ?? null;
}

/** Return the token with which users change what is their own in the user pool, or null where there is none. */
export async function accessToken() {
  return (await valid(false))?.access ?? null;
}

async function valid(isRefused) {
  if (tokens === null) return null;
  const isValid = tokens.until === null || tokens.until - EARLY_SECONDS * 1000 > Date.now();
  if (isValid && !isRefused) return tokens;
  if (!tokens.refresh) {
    keep(null);
    return null;
  }
  // Calls that find the token expired at the same time wait for one new one.
  renewing ??= renew().finally(() => {
    renewing = null;
  });
  await renewing;
  return tokens;
}

async function renew() {
  // Meanwhile the user may sign out, and another one in.
  const former = tokens;
  const next = await (await provider(former)).renew(former);
  if (tokens === former) keep(next);
}
