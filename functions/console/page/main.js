// Starts the console: signs in, chooses the view that the address names, and keeps it up to date.

import { forget, get, leaveView, onSignedOut } from "./api.js";
import { banner, closeDialogs, el } from "./dom.js";
import { live } from "./live.js";
import * as session from "./session.js";

const SECONDS = 10;
const SECONDS_UNTIL_TRIED_AGAIN = 5;
const SECONDS_BETWEEN_CHECKS = 60;

// Views of the service, for operators and viewers: name, title, module.
const OF_SERVICE = {
  overview: ["Overview", () => import("./views/overview.js")],
  queue: ["Queue", () => import("./views/queue.js")],
  activity: ["Activity", () => import("./views/activity.js")],
  failures: ["Failures", () => import("./views/failures.js")],
  deployments: ["Deployments", () => import("./views/deployments.js")],
  tenants: ["Tenants", () => import("./views/tenants.js")],
  waves: ["Waves", () => import("./views/waves.js")],
  costs: ["All costs", () => import("./views/service_costs.js")],
  "dead-letters": ["Dead letters", () => import("./views/dead_letters.js")],
  policy: ["Policy", () => import("./views/policy.js")],
};
// Of whoever is signed in.
const OF_USER = { account: ["Account", () => import("./views/account.js")] };
// Views of one tenant; and those of one thing of it, which the last part of the address names.
const OF_TENANT = {
  requests: ["Requests", () => import("./views/requests.js")],
  "data-sets": ["Data sets", () => import("./views/data_sets.js")],
  models: ["Models", () => import("./views/models.js")],
  deployments: ["Deployments", () => import("./views/deployments.js")],
  costs: ["Costs", () => import("./views/costs.js")],
  keys: ["Keys", () => import("./views/keys.js")],
};
const OF_THING = {
  requests: [(id) => `Request ${id.slice(0, 8)}`, () => import("./views/request.js")],
  models: [(id) => `Model version ${id}`, () => import("./views/model.js")],
};

const main = document.querySelector("main");
const nav = document.querySelector("nav");
const account = document.querySelector(".account");

let me = null;
let leave = () => {};
let visits = 0;
let version = null;
let checkedAt = 0;

/** Return a part of an address; as it is, where it is not encoded. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Return what the address names: { view, tenant, id, query }, and title and module if that is a page. */
function place() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const query = Object.fromEntries(new URLSearchParams(search || ""));
  const parts = path.split("/").filter(Boolean).map(decoded);
  const isOfTenant = parts[0] === "t";
  const [tenant, view, id] = isOfTenant
    ? [parts[1], parts[2] ?? "requests", parts[3]]
    : [undefined, parts[0], undefined];
  const views = id ? OF_THING : isOfTenant ? OF_TENANT : Object.hasOwn(OF_USER, view ?? "") ? OF_USER : OF_SERVICE;
  const isPage = Object.hasOwn(views, view ?? "") && parts.length <= (isOfTenant ? 4 : 1);
  const [title, module] = isPage ? views[view] : [];
  return { view, tenant, id, query, title: id && title ? title(id) : title, module };
}

const isOfService = () => me.role === "operator" || me.role === "viewer";
const mayChange = () => me.role === "operator" || me.role === "tenant-admin";

/** Return the address of a page of a tenant. */
const link = (tenant, ...parts) => `#/t/${[tenant, ...parts].map(encodeURIComponent).join("/")}`;
const firstPage = () => (isOfService() ? "#/overview" : link(me.tenant_id, "requests"));

/** Change the query of the address; the view stays. */
function setQuery(changes) {
  const next = Object.entries({ ...place().query, ...changes }).filter(([, value]) => value);
  const text = new URLSearchParams(next).toString();
  history.replaceState(null, "", `${location.hash.split("?")[0]}${text ? `?${text}` : ""}`);
}

/** Show what the address names. */
async function show({ isFirst = false } = {}) {
  const visit = ++visits;
  leave();
  leave = () => {};
  leaveView();
  closeDialogs();
  try {
    if (!session.isSignedIn()) return await showSignIn();
    if (me === null && !(await identify(visit))) return;
    const at = place();
    if (!at.view) return location.replace(firstPage());
    showNavigation(at);
    const isOwn = at.tenant === me.tenant_id || Object.hasOwn(OF_USER, at.view);
    const isAllowed = at.module && (isOfService() || isOwn);
    const view = isAllowed ? await loaded(at.module) : null;
    if (visit !== visits) return;
    if (view === null) showNothing();
    else showView(view, at, isFirst);
  } catch (error) {
    if (visit !== visits) return;
    console.error(error);
    main.replaceChildren(banner("bad", "The page could not be shown. Load it again."));
  }
}

/** Find out who is signed in; return whether that is known. */
async function identify(visit) {
  main.replaceChildren(el("p", { class: "starting" }, "Loading…"));
  showAccount("");
  try {
    const identified = await get("v1/me");
    if (visit !== visits) return false;
    me = identified;
    ({ version } = await session.readSettings());
    checkedAt = Date.now();
    return visit === visits;
  } catch (error) {
    if (visit !== visits || !session.isSignedIn()) return false;
    main.replaceChildren(banner("bad", error.message));
    // Who has no role has to be given one first.
    if (error.status !== 403)
      setTimeout(() => visit === visits && show({ isFirst: true }), SECONDS_UNTIL_TRIED_AGAIN * 1000);
    return false;
  }
}

/** Return a view's module; where another version of the console has been deployed, load the whole page again. */
async function loaded(module) {
  if (Date.now() - checkedAt > SECONDS_BETWEEN_CHECKS * 1000) {
    const fresh = await session.readSettings({ isFresh: true }).catch(() => ({ version }));
    // An upload would be lost: then the page goes on as it is.
    if (fresh.version !== version && !document.querySelector(".uploads progress")) location.reload();
    checkedAt = Date.now();
  }
  return module();
}

function showView(view, at, isFirst) {
  const heading = el("h1", { tabindex: "-1" }, at.title);
  const content = el("div", { class: "loading" });
  const control = {};
  const shown = view.show(content, {
    ...at,
    me,
    mayChange: mayChange(),
    isOfService: isOfService(),
    setQuery,
    reload: () => control.now(),
    link: (...parts) => link(at.tenant, ...parts),
    linkOf: link,
  });
  const seconds = shown.seconds ?? SECONDS;
  Object.assign(control, live({ load: shown.load, seconds, loaded: () => content.classList.remove("loading") }));
  leave = () => {
    control.stop();
    shown.leave?.();
  };
  main.replaceChildren(el("div", { class: "head" }, heading, control.element), control.banners, content);
  document.title = `${at.tenant ? `${at.title}, ${at.tenant}` : at.title} – Trainyard`;
  if (!isFirst) {
    scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }
  control.now();
}

function showNothing() {
  document.title = "Page not found – Trainyard";
  const heading = el("h1", { tabindex: "-1" }, "Page not found");
  const words = "This page does not exist, or you do not have access to it. ";
  main.replaceChildren(heading, el("p", {}, words, el("a", { href: firstPage() }, "Go to the start page")));
  heading.focus();
}

function showNavigation(at) {
  // Views of the service and of a tenant may have the same name.
  const item = ([name, [text]], href, isOfTenant) => {
    const isCurrent = name === at.view && isOfTenant === Boolean(at.tenant);
    return el("a", { href, "aria-current": isCurrent ? "page" : null }, text);
  };
  const tenant = isOfService() ? at.tenant : me.tenant_id;
  const service = isOfService() ? Object.entries(OF_SERVICE).map((each) => item(each, `#/${each[0]}`, false)) : [];
  const named = isOfService() && tenant ? [el("span", { class: "whose" }, `${tenant}:`)] : [];
  const own = tenant ? Object.entries(OF_TENANT).map((each) => item(each, link(tenant, each[0]), true)) : [];
  nav.replaceChildren(...service, ...named, ...own);
  showAccount(me.tenant_id ? `${me.tenant_id}, ${me.role}` : me.role);
}

function showAccount(words) {
  const out = el("button", { type: "button", onclick: signOut }, "Sign out");
  account.replaceChildren(el("a", { href: "#/account" }, words || "Account"), out);
}

async function signOut() {
  const { stopUploads } = await import("./upload.js");
  // While it is signed in: parts are discarded with the user's own token.
  await stopUploads();
  session.signOut();
  forget();
  sessionStorage.clear();
  if ((await session.readSettings()).issuer) (await import("./issuer.js")).leave();
  history.replaceState(null, "", "#/");
  await showSignIn();
}

/** Show the first page; where an identity provider has sent the user back, once its answer is taken. */
async function start() {
  if (!location.search) return show({ isFirst: true });
  const { complete } = await import("./issuer.js");
  try {
    const tokens = await complete();
    if (tokens !== null) session.keep(tokens);
  } catch (error) {
    if (!session.isSignedIn()) return showSignIn(error.message);
  }
  return show({ isFirst: true });
}

async function showSignIn(words = "") {
  visits += 1;
  leave();
  leave = () => {};
  leaveView();
  me = null;
  closeDialogs();
  nav.replaceChildren();
  account.replaceChildren();
  document.title = "Sign in – Trainyard";
  const { signInForm } = await import("./views/sign_in.js");
  main.replaceChildren(signInForm(words, () => show()));
  main.querySelector("input, textarea")?.focus();
}

// An address like #main would name a page.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
onSignedOut(() => showSignIn("Your session has ended."));
addEventListener("hashchange", () => show());
start();
