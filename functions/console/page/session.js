// Who is signed in. Tokens stay in this tab, and are gone when it is closed.

const KEY = "trainyard.session";
const AMAZON_JSON = "application/x-amz-json-1.1";
const EARLY_SECONDS = 60;
const REFUSED = "NotAuthorizedException";

let settings = null;
let tokens = read();
let refreshing = null;
let number = 1;

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function keep(next) {
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

export const signOut = () => {
  const refreshToken = tokens?.refresh;
  number += 1;
  keep(null);
  // In the background: whoever signs out need not wait for it.
  if (refreshToken) cognito("RevokeToken", { Token: refreshToken }).catch(() => {});
};

/** A step of a sign-in that Cognito asks for: a new password, or a code of the second factor. */
export class Challenge {
  constructor(name, session, username) {
    Object.assign(this, { name, session, username });
  }
}

/** What Cognito refuses, in its words; `kind` is its name of the error. */
export class SignInError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

async function cognito(operation, body) {
  const { users, client } = await readSettings();
  const answer = await fetch(users, {
    method: "POST",
    headers: {
      "Content-Type": AMAZON_JSON,
      "X-Amz-Target": `AWSCognitoIdentityProviderService.${operation}`,
    },
    body: JSON.stringify({ ClientId: client, ...body }),
  });
  const content = await answer.text();
  const values = content ? JSON.parse(content) : {};
  if (answer.ok) return values;
  const words = values.message || values.Message || `The sign-in was answered with status ${answer.status}.`;
  throw new SignInError(
    String(values.__type || "")
      .split("#")
      .pop(),
    words,
  );
}

/** Sign in; return null, or a Challenge. */
export async function signIn(username, password) {
  const parameters = { USERNAME: username, PASSWORD: password };
  const answer = await cognito("InitiateAuth", { AuthFlow: "USER_PASSWORD_AUTH", AuthParameters: parameters });
  return settled(answer, username);
}

/** Answer a challenge; return null, or the next one. */
export async function respond(challenge, text) {
  const name = challenge.name === "NEW_PASSWORD_REQUIRED" ? "NEW_PASSWORD" : `${challenge.name}_CODE`;
  const answer = await cognito("RespondToAuthChallenge", {
    ChallengeName: challenge.name,
    Session: challenge.session,
    ChallengeResponses: { USERNAME: challenge.username, [name]: text },
  });
  return settled(answer, challenge.username);
}

function settled(answer, username) {
  if (answer.ChallengeName) {
    const named = answer.ChallengeParameters?.USER_ID_FOR_SRP || username;
    return new Challenge(answer.ChallengeName, answer.Session, named);
  }
  keep(tokensOf(answer.AuthenticationResult, null));
  return null;
}

function tokensOf({ IdToken, RefreshToken, ExpiresIn }, refreshToken) {
  return { id: IdToken, refresh: RefreshToken || refreshToken, until: Date.now() + ExpiresIn * 1000 };
}

/** Sign in with a token of another issuer: it is checked by the API. */
export function signInWith(token) {
  const compact = token.replace(/\s/g, "");
  if (!/^[\w-]+\.[\w-]+\.[\w-]*$/.test(compact))
    throw new Error("This is not an ID token: it has three parts, separated by dots.");
  keep({ id: compact, refresh: null, until: null });
}

/** Return a valid token, or null where the user has to sign in again; rejects where neither can be found out. */
export async function token({ isRefused = false } = {}) {
  if (tokens === null) return null;
  const isValid = tokens.until === null || tokens.until - EARLY_SECONDS * 1000 > Date.now();
  if (isValid && !isRefused) return tokens.id;
  if (!tokens.refresh) {
    keep(null);
    return null;
  }
  // Calls that find the token expired at the same time wait for one new one.
  refreshing ??= refresh().finally(() => {
    refreshing = null;
  });
  await refreshing;
  return tokens?.id ?? null;
}

async function refresh() {
  // Meanwhile the user may sign out, and another one in.
  const former = tokens;
  try {
    const body = { AuthFlow: "REFRESH_TOKEN_AUTH", AuthParameters: { REFRESH_TOKEN: former.refresh } };
    const { AuthenticationResult: result } = await cognito("InitiateAuth", body);
    if (tokens === former) keep(tokensOf(result, former.refresh));
  } catch (error) {
    // Anything else passes: the session may be as good as before.
    if (error.kind !== REFUSED) throw error;
    if (tokens === former) keep(null);
  }
}
