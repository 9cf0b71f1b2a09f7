// Starts the console: signs in, chooses the view that the address names, and keeps it up to date.

import { ApiError, get } from "./api.js";
import { el, field } from "./dom.js";
import { live } from "./live.js";
import * as session from "./session.js";

const OF_SERVICE = [
  ["overview", "Overview"],
  ["queue", "Queue"],
  ["activity", "Activity"],
  ["failures", "Failures"],
  ["tenants", "Tenants"],
  ["policy", "Policy"],
];
const OF_TENANT = [
  ["requests", "Requests"],
  ["data-sets", "Data sets"],
  ["models", "Models"],
  ["costs", "Costs"],
];

const VIEWS = {
  overview: () => import("./views/overview.js"),
  queue: () => import("./views/queue.js"),
  activity: () => import("./views/activity.js"),
  failures: () => import("./views/failures.js"),
  tenants: () => import("./views/tenants.js"),
  policy: () => import("./views/policy.js"),
  requests: () => import("./views/requests.js"),
  request: () => import("./views/request.js"),
  "data-sets": () => import("./views/data_sets.js"),
  models: () => import("./views/models.js"),
  model: () => import("./views/model.js"),
  costs: () => import("./views/costs.js"),
};

const main = document.querySelector("main");
const nav = document.querySelector("nav");
const account = document.querySelector(".account");

let me = null;
let current = null;

/** Return a part of an address; as it is, where it is not encoded. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Return what the address names: { view, tenant, id, query }. */
function place() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const query = Object.fromEntries(new URLSearchParams(search || ""));
  const parts = path.split("/").filter(Boolean).map(decoded);
  if (parts[0] !== "t") return { view: parts[0] || "", tenant: null, id: null, query };
  const [, tenant, view = "requests", id = null] = parts;
  return { view: id === null ? view : { requests: "request", models: "model" }[view] || view, tenant, id, query };
}

const isOfService = () => me.role === "operator" || me.role === "viewer";
const mayChange = () => me.role === "operator" || me.role === "tenant-admin";

/** Change the query of the address; the view stays. */
function setQuery(changes) {
  const { query } = place();
  const next = Object.entries({ ...query, ...changes }).filter(([, value]) => value);
  const text = new URLSearchParams(next).toString();
  history.replaceState(null, "", `${location.hash.split("?")[0]}${text ? `?${text}` : ""}`);
}

async function show({ isFirst = false } = {}) {
  current?.stop();
  current = null;
  if (!session.isSignedIn()) return showSignIn();
  if (me === null) {
    main.replaceChildren(el("p", { class: "starting" }, "Loading…"));
    const start = live({
      seconds: 5,
      signedOut: showSignIn,
      load: async () => {
        me = await get("v1/me");
        started.stop();
        await show({ isFirst });
      },
    });
    const started = start;
    main.append(start.banners);
    return start.start();
  }
  const at = place();
  if (!at.view) return location.replace(`#/${isOfService() ? "overview" : `t/${me.tenant_id}/requests`}`);
  showNavigation(at);
  const view = VIEWS[at.view] && (isOfService() || at.tenant) ? await VIEWS[at.view]() : null;
  if (view === null) return showNothing();
  showView(view, at, isFirst);
}

function showView(view, at, isFirst) {
  const context = {
    ...at,
    me,
    mayChange: mayChange(),
    isOfService: isOfService(),
    setQuery,
    reload: () => control.now(),
    link: (...parts) => `#/t/${[at.tenant, ...parts].map(encodeURIComponent).join("/")}`,
  };
  const title = view.title(context);
  const heading = el("h1", { tabindex: "-1" }, title);
  const content = el("div", { class: "loading" });
  const load = view.show(content, context);
  const control = live({ load, signedOut: showSignIn, loaded: () => content.classList.remove("loading") });
  current = {
    stop: () => {
      control.stop();
      view.leave?.();
    },
  };
  main.replaceChildren(el("div", { class: "head" }, heading, control.element), control.banners, content);
  document.title = `${at.tenant ? `${title}, ${at.tenant}` : title} – Trainyard`;
  if (!isFirst) {
    scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }
  return control.start();
}

function showNothing() {
  main.replaceChildren(
    el("h1", {}, "There is nothing here"),
    el(
      "p",
      {},
      "The address names no page, or none that you may see. ",
      el("a", { href: "#/" }, "Go to the first page"),
    ),
  );
}

function showNavigation(at) {
  const link = ([view, text], href) =>
    el("a", { href, "aria-current": view === at.view || view === `${at.view}s` ? "page" : null }, text);
  const tenant = at.tenant ?? me.tenant_id;
  const own = tenant ? OF_TENANT.map((item) => link(item, `#/t/${encodeURIComponent(tenant)}/${item[0]}`)) : [];
  const service = isOfService() ? OF_SERVICE.map((item) => link(item, `#/${item[0]}`)) : [];
  const name =
    isOfService() && tenant
      ? [el("span", { class: "quiet", style: { padding: ".4rem .3rem .4rem .9rem" } }, `${tenant}:`)]
      : [];
  nav.replaceChildren(...service, ...name, ...own);
  account.replaceChildren(
    el("span", { class: "subject" }, me.tenant_id ? `${me.tenant_id}, ${me.role}` : me.role),
    el("button", { type: "button", onclick: leave }, "Sign out"),
  );
}

async function leave() {
  current?.stop();
  await session.signOut();
  location.hash = "";
  showSignIn();
}

// --- sign in ---------------------------------------------------------------------------------------------------

function showSignIn() {
  current?.stop();
  current = me = null;
  nav.replaceChildren();
  account.replaceChildren();
  document.title = "Sign in – Trainyard";
  const form = el("form", { class: "panel" });
  main.replaceChildren(el("div", { class: "sign-in" }, form));
  passwordForm(form);
  session.readSettings().then(
    ({ client }) => {
      if (!client) tokenForm(form);
    },
    () => {
      form.append(
        el(
          "p",
          { class: "banner bad", role: "alert" },
          "There is no connection to the service. Load the page again.",
        ),
      );
    },
  );
}

function passwordForm(form) {
  const email = el("input", { type: "email", name: "username", autocomplete: "username", required: true });
  const password = el("input", {
    type: "password",
    name: "password",
    autocomplete: "current-password",
    required: true,
  });
  steps(form, "Sign in", [field("E-mail address", email), field("Password", password)], () =>
    session.signIn(email.value, password.value),
  );
  email.focus();
}

function tokenForm(form) {
  const token = el("textarea", {
    rows: "5",
    class: "code",
    required: true,
    spellcheck: "false",
    autocomplete: "off",
  });
  steps(
    form,
    "Sign in",
    [
      field(
        "ID token",
        token,
        "This deployment takes tokens of another issuer. Paste one here; it is kept in this tab alone.",
      ),
    ],
    async () => {
      session.signInWith(token.value);
      return null;
    },
  );
}

function challengeForm(form, challenge) {
  if (challenge.name === "NEW_PASSWORD_REQUIRED") {
    const password = el("input", {
      type: "password",
      autocomplete: "new-password",
      required: true,
      minlength: "12",
    });
    const hint = "At least 12 characters, with capital and small letters and a digit.";
    steps(form, "Choose a new password", [field("New password", password, hint)], () =>
      session.respond(challenge, password.value),
    );
    return password.focus();
  }
  if (!["SOFTWARE_TOKEN_MFA", "SMS_MFA"].includes(challenge.name)) {
    return form.replaceChildren(
      el(
        "p",
        { class: "banner bad", role: "alert" },
        `This sign-in asks for ${challenge.name}, which the console does not have. Ask your operator.`,
      ),
    );
  }
  const code = el("input", {
    inputmode: "numeric",
    autocomplete: "one-time-code",
    pattern: "[0-9]{6}",
    required: true,
  });
  steps(
    form,
    "Enter the code",
    [field("Code", code, "Six digits, of your authenticator app or of a message.")],
    () => session.respond(challenge, code.value),
  );
  return code.focus();
}

/** Show one step of a sign-in; `answer` resolves to a Challenge, or to null when the user is signed in. */
function steps(form, title, fields, answer) {
  const problem = el("div", { role: "alert" });
  const button = el("button", { class: "main" }, title === "Sign in" ? "Sign in" : "Continue");
  form.replaceChildren(
    el("h1", {}, title),
    el("div", { class: "low" }, fields),
    problem,
    el("div", { class: "buttons" }, button),
  );
  form.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const challenge = await answer();
      if (challenge) challengeForm(form, challenge);
      else await show();
    } catch (error) {
      const text =
        error instanceof TypeError
          ? "There is no connection to the service."
          : error.name === "NotAuthorizedException"
            ? "The e-mail address or the password is wrong."
            : error.message;
      problem.replaceChildren(el("p", { class: "banner bad" }, text));
    } finally {
      button.disabled = false;
    }
  };
}

addEventListener("hashchange", () => show());
show({ isFirst: true }).catch((error) => {
  main.replaceChildren(
    el(
      "p",
      { class: "banner bad" },
      error instanceof ApiError ? error.message : "The page could not be shown: load it again.",
    ),
  );
  console.error(error);
});
