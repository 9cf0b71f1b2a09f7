// Signing in at the deployment's user pool, with a password and perhaps an authenticator app.

import { readSettings } from "./session.js";

const AMAZON_JSON = "application/x-amz-json-1.1";
const REFUSED = "NotAuthorizedException";
const APP = "SOFTWARE_TOKEN_MFA";

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
  const { users } = await readSettings();
  const answer = await fetch(users, {
    method: "POST",
    headers: {
      "Content-Type": AMAZON_JSON,
      "X-Amz-Target": `AWSCognitoIdentityProviderService.${operation}`,
    },
    body: JSON.stringify(body),
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

/** Call an operation that belongs to the console's client. */
async function ofClient(operation, body) {
  const { client } = await readSettings();
  return cognito(operation, { ClientId: client, ...body });
}

/** Sign in; return tokens, or a Challenge. */
export async function signIn(username, password) {
  const parameters = { USERNAME: username, PASSWORD: password };
  const answer = await ofClient("InitiateAuth", { AuthFlow: "USER_PASSWORD_AUTH", AuthParameters: parameters });
  return settled(answer, username);
}

/** Answer a challenge; return tokens, or the next Challenge. */
export async function respond(challenge, text) {
  const name = challenge.name === "NEW_PASSWORD_REQUIRED" ? "NEW_PASSWORD" : `${challenge.name}_CODE`;
  const answer = await ofClient("RespondToAuthChallenge", {
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
  return tokensOf(answer.AuthenticationResult, null);
}

function tokensOf({ IdToken, AccessToken, RefreshToken, ExpiresIn }, refreshToken) {
  return {
    by: "cognito",
    id: IdToken,
    access: AccessToken,
    refresh: RefreshToken || refreshToken,
    until: Date.now() + ExpiresIn * 1000,
  };
}

/** Return new tokens, or null where the session has ended; rejects where neither can be found out. */
export async function renew({ refresh }) {
  try {
    const body = { AuthFlow: "REFRESH_TOKEN_AUTH", AuthParameters: { REFRESH_TOKEN: refresh } };
    return tokensOf((await ofClient("InitiateAuth", body)).AuthenticationResult, refresh);
  } catch (error) {
    // Anything else passes: the session may be as good as before.
    if (error.kind === REFUSED) return null;
    throw error;
  }
}

export const revoke = ({ refresh }) => ofClient("RevokeToken", { Token: refresh });

/** Let Cognito send a code to a user who has forgotten the password. */
export const forgetPassword = (username) => ofClient("ForgotPassword", { Username: username });

export const choosePassword = (username, code, password) =>
  ofClient("ConfirmForgotPassword", { Username: username, ConfirmationCode: code, Password: password });

export const changePassword = (access, former, next) =>
  cognito("ChangePassword", { AccessToken: access, PreviousPassword: former, ProposedPassword: next });

/** Return the user's e-mail address, and whether an authenticator app is asked for at each sign-in. */
export async function account(access) {
  const { UserAttributes: attributes = [], UserMFASettingList: factors = [] } = await cognito("GetUser", {
    AccessToken: access,
  });
  const email = attributes.find(({ Name: name }) => name === "email")?.Value ?? "";
  return { email, hasApp: factors.includes(APP) };
}

/** Begin to set an authenticator app up; return the key that it is given. */
export async function beginApp(access) {
  return (await cognito("AssociateSoftwareToken", { AccessToken: access })).SecretCode;
}

/** Ask for an authenticator app at each sign-in from now on; `code` shows that it has the key. */
export async function confirmApp(access, code) {
  const { Status: status } = await cognito("VerifySoftwareToken", { AccessToken: access, UserCode: code });
  if (status !== "SUCCESS") throw new SignInError(status, "The code is wrong: wait for the next one.");
  await setApp(access, true);
}

export const removeApp = (access) => setApp(access, false);

const setApp = (access, isOn) =>
  cognito("SetUserMFAPreference", {
    AccessToken: access,
    SoftwareTokenMfaSettings: { Enabled: isOn, PreferredMfa: isOn },
  });
