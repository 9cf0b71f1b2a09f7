// The sign-in: a password at the deployment's user pool, another identity provider, or a token of it.

import * as cognito from "../cognito.js";
import { banner, el, field } from "../dom.js";
import * as session from "../session.js";

const WRONG = "The e-mail address or the password is wrong.";
const UNKNOWN_TO_COGNITO = "Incorrect username or password.";
const PASSWORD_HINT = "At least 12 characters, with capital and small letters and a digit.";

/** Return the form; `words` say why one has to sign in, and `done` is called when that is done. */
export function signInForm(words, done) {
  const form = el("form", { class: "panel" });
  passwordForm(form, done);
  const failed = () => form.append(banner("bad", "There is no connection to the service. Load the page again."));
  session.readSettings().then(({ issuer, client }) => {
    if (issuer && client) issuerForm(form, issuer);
    else if (issuer) tokenForm(form, done);
  }, failed);
  return el("div", { class: "sign-in" }, words ? banner("", words) : null, form);
}

function passwordForm(form, done) {
  const email = emailInput();
  const password = passwordInput("current-password", { name: "password" });
  const fields = [field("E-mail address", email), field("Password", password)];
  step(form, done, "Sign in", "Sign in", fields, () =>
    // To the pool, letters are alike in both cases.
    cognito.signIn(email.value.toLowerCase(), password.value),
  );
  addLink(form, "Forgot the password?", () => forgottenForm(form, done, email.value));
}

const emailInput = (value = "") =>
  el("input", { type: "email", name: "username", autocomplete: "username", required: true, value });
const passwordInput = (kind, more = {}) =>
  el("input", { type: "password", autocomplete: kind, required: true, ...more });
const newPasswordInput = () => passwordInput("new-password", { minlength: "12" });
const codeInput = () =>
  el("input", { inputmode: "numeric", autocomplete: "one-time-code", pattern: "[0-9]{6}", required: true });

function addLink(form, text, action) {
  form.append(el("button", { type: "button", class: "link", onclick: action }, text));
}

function issuerForm(form, issuer) {
  const hint = el("p", { class: "quiet" }, `You sign in at ${new URL(issuer).host}, and come back here.`);
  step(
    form,
    () => {},
    "Sign in",
    "Continue",
    [hint],
    async () => {
      const { begin } = await import("../issuer.js");
      await begin();
      return null;
    },
  );
}

function tokenForm(form, done) {
  const token = el("textarea", {
    rows: "5",
    class: "code",
    required: true,
    spellcheck: "false",
    autocomplete: "off",
  });
  const hint = "This deployment uses another identity provider. The token is kept only in this tab.";
  step(form, done, "Sign in", "Sign in", [field("ID token", token, hint)], async () => {
    session.signInWith(token.value);
    return null;
  });
  token.focus();
}

/** Let a code be sent to a user who has forgotten the password. */
function forgottenForm(form, done, address) {
  const email = emailInput(address);
  const hint = "A code is sent to it, if it belongs to a user.";
  const send = async () => {
    await cognito.forgetPassword(email.value);
    chosenForm(form, done, email.value);
    return undefined;
  };
  step(form, done, "Choose a new password", "Send a code", [field("E-mail address", email, hint)], send);
  addLink(form, "Start again", () => passwordForm(form, done));
  email.focus();
}

function chosenForm(form, done, email) {
  const code = el("input", { autocomplete: "one-time-code", required: true, maxlength: "20" });
  const password = newPasswordInput();
  const fields = [
    field("Code", code, `From the e-mail to ${email}`),
    field("New password", password, PASSWORD_HINT),
  ];
  step(form, done, "Choose a new password", "Continue", fields, async () => {
    await cognito.choosePassword(email, code.value.trim(), password.value);
    return cognito.signIn(email, password.value);
  });
  addLink(form, "Start again", () => passwordForm(form, done));
  code.focus();
}

function challengeForm(form, done, challenge) {
  if (challenge.name === "NEW_PASSWORD_REQUIRED") {
    const password = newPasswordInput();
    const fields = [field("New password", password, PASSWORD_HINT)];
    step(form, done, "Choose a new password", "Continue", fields, () =>
      cognito.respond(challenge, password.value),
    );
  } else if (challenge.name === "SOFTWARE_TOKEN_MFA") {
    const code = codeInput();
    const fields = [field("Code", code, "The six-digit code from your authenticator app.")];
    step(form, done, "Enter the code", "Continue", fields, () => cognito.respond(challenge, code.value));
  } else {
    form.replaceChildren(
      banner(
        "bad",
        `This sign-in asks for ${challenge.name}, which the console does not support. Ask your operator.`,
      ),
    );
  }
  addLink(form, "Start again", () => passwordForm(form, done));
  form.querySelector("input")?.focus();
}

/**
 * Show one step of a sign-in. `answer` resolves to tokens, to a Challenge, to null when the user is signed in
 * already, or to undefined when another step is shown.
 */
function step(form, done, title, verb, fields, answer) {
  const problem = el("div", { role: "alert" });
  const button = el("button", { class: "main" }, verb);
  form.replaceChildren(el("h1", {}, title), ...fields, problem, el("div", { class: "buttons" }, button));
  form.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const next = await answer();
      if (next === undefined) return;
      if (next instanceof cognito.Challenge) return challengeForm(form, done, next);
      if (next !== null) session.keep(next);
      await done();
    } catch (error) {
      problem.replaceChildren(banner("bad", wordsOf(error)));
      form.querySelector("input[type=password], textarea")?.focus();
    } finally {
      button.disabled = false;
    }
  };
}

function wordsOf(error) {
  if (error.message === UNKNOWN_TO_COGNITO) return WRONG;
  return error instanceof TypeError ? "There is no connection to the service." : error.message;
}
