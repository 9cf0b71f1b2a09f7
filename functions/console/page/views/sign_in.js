// The sign-in: a password at the deployment's user pool, or a token of another issuer.

import { banner, el, field } from "../dom.js";
import * as session from "../session.js";

const WRONG = "The e-mail address or the password is wrong.";
const UNKNOWN_TO_COGNITO = "Incorrect username or password.";

/** Return the form; `words` say why one has to sign in, and `done` is called when that is done. */
export function signInForm(words, done) {
  const form = el("form", { class: "panel" });
  passwordForm(form, done);
  const failed = () => form.append(banner("bad", "There is no connection to the service. Load the page again."));
  session.readSettings().then(({ client }) => {
    if (!client) tokenForm(form, done);
  }, failed);
  return el("div", { class: "sign-in" }, words ? banner("", words) : null, form);
}

function passwordForm(form, done) {
  const email = el("input", { type: "email", name: "username", autocomplete: "username", required: true });
  const password = el("input", {
    type: "password",
    name: "password",
    autocomplete: "current-password",
    required: true,
  });
  const fields = [field("E-mail address", email), field("Password", password)];
  step(form, done, "Sign in", "Sign in", fields, () => session.signIn(email.value, password.value));
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
  step(
    form,
    done,
    "Sign in",
    "Sign in",
    [field("ID token", token, hint)],
    async () => session.signInWith(token.value) ?? null,
  );
  token.focus();
}

function challengeForm(form, done, challenge) {
  if (challenge.name === "NEW_PASSWORD_REQUIRED") {
    const password = el("input", {
      type: "password",
      autocomplete: "new-password",
      required: true,
      minlength: "12",
    });
    const hint = "At least 12 characters, with capital and small letters and a digit.";
    const fields = [field("New password", password, hint)];
    step(form, done, "Choose a new password", "Continue", fields, () =>
      session.respond(challenge, password.value),
    );
  } else if (challenge.name === "SOFTWARE_TOKEN_MFA") {
    const code = el("input", {
      inputmode: "numeric",
      autocomplete: "one-time-code",
      pattern: "[0-9]{6}",
      required: true,
    });
    const fields = [field("Code", code, "The six-digit code from your authenticator app.")];
    step(form, done, "Enter the code", "Continue", fields, () => session.respond(challenge, code.value));
  } else {
    form.replaceChildren(
      banner(
        "bad",
        `This sign-in asks for ${challenge.name}, which the console does not support. Ask your operator.`,
      ),
    );
  }
  form.append(
    el("button", { type: "button", class: "link", onclick: () => passwordForm(form, done) }, "Start again"),
  );
  form.querySelector("input")?.focus();
}

/** Show one step of a sign-in; `answer` resolves to a Challenge, or to null when the user is signed in. */
function step(form, done, title, verb, fields, answer) {
  const problem = el("div", { role: "alert" });
  const button = el("button", { class: "main" }, verb);
  form.replaceChildren(el("h1", {}, title), ...fields, problem, el("div", { class: "buttons" }, button));
  form.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const challenge = await answer();
      if (challenge) challengeForm(form, done, challenge);
      else await done();
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
