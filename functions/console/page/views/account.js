// The user's own account: the password, and the authenticator app that is asked for at each sign-in.

import { get } from "../api.js";
import { act, ask, banner, el, panel } from "../dom.js";
import { figures } from "../format.js";
import { accessToken } from "../session.js";

const LABEL = "Trainyard";
const PASSWORD_HINT = "At least 12 characters, with capital and small letters and a digit.";

/** Return the access token of a session that goes on; one that has ended is shown as any call shows it. */
async function present() {
  await get("v1/me");
  return accessToken();
}

export function show(view, { me, reload }) {
  const facts = el("div");
  const app = el("div");
  const status = el("div", { role: "status" });
  const change = el("button", { type: "button" }, "Change the password");
  const own = panel("Sign-in", app, el("div", { class: "buttons more" }, change), status);
  const elsewhere = el("p", { class: "quiet" }, "Your identity provider keeps your password.");
  own.hidden = true;
  elsewhere.hidden = true;
  view.append(panel("You", facts, elsewhere), own);
  change.addEventListener("click", () => act(change, status, changedPassword));

  async function load() {
    const cognito = await import("../cognito.js");
    const access = await present();
    const { email = "", hasApp = false } = access ? await cognito.account(access) : {};
    const whose = me.tenant_id ? ["Tenant", me.tenant_id] : null;
    facts.replaceChildren(figures([email ? ["User", email] : null, ["Role", me.role], whose]));
    own.hidden = !access;
    elsewhere.hidden = Boolean(access);
    if (access) app.replaceChildren(factor(cognito, email, hasApp));
  }

  function factor(cognito, email, hasApp) {
    const button = el("button", { type: "button", class: hasApp ? "danger" : "" }, hasApp ? "Remove" : "Set up");
    button.addEventListener("click", () =>
      act(button, status, () => (hasApp ? removed(cognito) : begun(cognito, email))),
    );
    const words = hasApp
      ? "A code of your authenticator app is asked for at each sign-in."
      : "Your password alone signs you in. An authenticator app on your phone makes that safer.";
    return el("div", {}, el("p", {}, words), el("div", { class: "buttons" }, button));
  }

  async function begun(cognito, email) {
    const access = await present();
    const key = await cognito.beginApp(access);
    const address = `otpauth://totp/${LABEL}:${encodeURIComponent(email)}?secret=${key}&issuer=${LABEL}`;
    const code = el("input", {
      inputmode: "numeric",
      autocomplete: "one-time-code",
      pattern: "[0-9]{6}",
      required: true,
    });
    const answer = await ask({
      title: "Set up an authenticator app",
      action: "Set up",
      text: [
        el(
          "p",
          {},
          "Add this key to the app, by hand or by ",
          el("a", { href: address }, "opening it there"),
          ":",
        ),
        el("p", {}, el("code", { class: "key" }, key.match(/.{1,4}/g).join(" "))),
      ],
      fields: { code: { label: "Code", control: code, hint: "The six digits that the app shows then" } },
      submit: async ({ code: digits }) => {
        await cognito.confirmApp(access, digits);
        return true;
      },
    });
    if (!answer) return;
    status.replaceChildren(banner("good", "The authenticator app is asked for from the next sign-in on."));
    await reload();
  }

  async function removed(cognito) {
    const submit = async () => {
      await cognito.removeApp(await present());
      return true;
    };
    const text = [el("p", {}, "Your password alone will sign you in.")];
    const title = "Remove the authenticator app?";
    if (!(await ask({ title, action: "Remove", danger: true, text, submit }))) return;
    status.replaceChildren(banner("good", "The authenticator app is not asked for any more."));
    await reload();
  }

  async function changedPassword() {
    const cognito = await import("../cognito.js");
    const secret = (kind, more = {}) =>
      el("input", { type: "password", autocomplete: kind, required: true, ...more });
    const fields = {
      former: { label: "Present password", control: secret("current-password") },
      next: {
        label: "New password",
        control: secret("new-password", { minlength: "12" }),
        hint: PASSWORD_HINT,
      },
    };
    const submit = async ({ former, next }) => {
      await cognito.changePassword(await present(), former, next).catch((error) => {
        throw error.kind === "NotAuthorizedException" ? new Error("The present password is wrong.") : error;
      });
      return true;
    };
    if (!(await ask({ title: "Change the password", action: "Change", fields, submit }))) return;
    status.replaceChildren(banner("good", "The password is changed."));
  }

  return { load, seconds: 0 };
}
