// Who is signed in. Tokens stay in this tab, and are gone when it is closed.

const KEY = "trainyard.session";
const AMAZON_JSON = "application/x-amz-json-1.1";
const EARLY_SECONDS = 60;

let settings = null;
let tokens = read();
let refreshing = null;

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function keep(next) {
  tokens = next;
  if (next) sessionStorage.setItem(KEY, JSON.stringify(next));
  else sessionStorage.removeItem(KEY);
}

/** Return how users of this deployment sign in (functions/console/app.py). */
export async function readSettings() {
  settings ??= await (await fetch("console/settings.json")).json();
  return settings;
}

export const isSignedIn = () => tokens !== null;

/** A step of a sign-in that Cognito asks for: a new password, or a code of the second factor. */
export class Challenge {
  constructor(name, session, username) {
    Object.assign(this, { name, session, username });
  }
}

async function cognito(operation, body) {
  const { users, client } = await readSettings();
  const answer = await fetch(users, {
    method: "POST",
    headers: { "Content-Type": AMAZON_JSON, "X-Amz-Target": `AWSCognitoIdentityProviderService.${operation}` },
    body: JSON.stringify({ ClientId: client, ...body }),
  });
  const content = await answer.text();
  const values = content ? JSON.parse(content) : {};
  if (!answer.ok) {
    const error = new Error(
      values.message || values.Message || `The sign-in was answered with status ${answer.status}.`,
    );
    error.name = String(values.__type || "")
      .split("#")
      .pop();
    throw error;
  }
  return values;
}

/** Sign in; return null, or a Challenge. */
export async function signIn(username, password) {
  const parameters = { USERNAME: username, PASSWORD: password };
  return settled(
    await cognito("InitiateAuth", { AuthFlow: "USER_PASSWORD_AUTH", AuthParameters: parameters }),
    username,
  );
}

/** Answer a challenge; return null, or the next one. */
export async function respond(challenge, text) {
  const name = { NEW_PASSWORD_REQUIRED: "NEW_PASSWORD" }[challenge.name] || `${challenge.name}_CODE`;
  const body = {
    ChallengeName: challenge.name,
    Session: challenge.session,
    ChallengeResponses: { USERNAME: challenge.username, [name]: text },
  };
  return settled(await cognito("RespondToAuthChallenge", body), challenge.username);
}

function settled(answer, username) {
  if (answer.ChallengeName) {
    const named = answer.ChallengeParameters?.USER_ID_FOR_SRP || username;
    return new Challenge(answer.ChallengeName, answer.Session, named);
  }
  const { IdToken, RefreshToken, ExpiresIn } = answer.AuthenticationResult;
  keep({ id: IdToken, refresh: RefreshToken || tokens?.refresh, until: Date.now() + ExpiresIn * 1000 });
  return null;
}

/** Sign in with a token of another issuer: it is checked by the API. */
export function signInWith(token) {
  keep({ id: token.trim(), refresh: null, until: Infinity });
}

/** Return a valid token, or null where the user has to sign in again. Throws TypeError without a network. */
export async function token({ isRefused = false } = {}) {
  if (tokens === null) return null;
  const isValid =
    tokens.until === null || tokens.until === Infinity || tokens.until - EARLY_SECONDS * 1000 > Date.now();
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
  try {
    await settled(
      await cognito("InitiateAuth", {
        AuthFlow: "REFRESH_TOKEN_AUTH",
        AuthParameters: { REFRESH_TOKEN: tokens.refresh },
      }),
    );
  } catch (error) {
    if (error instanceof TypeError) throw error; // no network: the session may be as good as before
    keep(null);
  }
}

export async function signOut() {
  const refreshToken = tokens?.refresh;
  keep(null);
  if (refreshToken) await cognito("RevokeToken", { Token: refreshToken }).catch(() => {});
}
