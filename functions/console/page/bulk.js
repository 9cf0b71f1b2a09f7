// Bulk actions: something is done to many requests, also after the page that asked for it was left.

import { at, get, post } from "./api.js";
import { act, banner, el } from "./dom.js";
import { many } from "./format.js";

const SECONDS = 2;
const FAILURES_SHOWN_MAX = 3;
const VERBS = { cancel: ["Cancelling", "request", "cancelled"], retry: ["Requesting", "training", "requested"] };
const MINUTES_REMEMBERED = 10;

/**
 * Return { element, begin, load, leave }. `path` is where the actions are; `ended` is called after one has ended.
 * begin(body) begins one and shows how far it is; load() shows one that somebody has begun before.
 */
export function bulkActions({ path, mayChange, ended }) {
  const progress = el("div", { class: "bulk" });
  const status = el("div", { role: "status" });
  let [watched, timer, isLeft] = [null, null, false];

  async function begin(body) {
    const action = await post(path, body);
    status.replaceChildren();
    if (action.id) watch(action);
    return action;
  }

  async function load() {
    if (watched !== null) return;
    const { items } = await get(path, { limit: 1 });
    if (!items.length) return;
    if (isUnfinished(items[0])) watch(items[0]);
    // Whoever comes back finds out what became of it.
    else if (isRecent(items[0]) && !status.firstChild) status.replaceChildren(summary(items[0]));
  }

  function watch(action) {
    watched = action.id;
    show(action);
    clearTimeout(timer);
    timer = setTimeout(look, SECONDS * 1000);
  }

  async function look() {
    try {
      const action = await get(`${path}/${encodeURIComponent(watched)}`);
      if (isLeft) return;
      if (isUnfinished(action)) return watch(action);
      await finish(action);
    } catch {
      if (!isLeft) timer = setTimeout(look, SECONDS * 1000);
    }
  }

  async function finish(action) {
    watched = null;
    progress.replaceChildren();
    status.replaceChildren(summary(action));
    await ended(action);
  }

  function show(action) {
    if (!progress.firstChild) {
      const stop = el("button", { type: "button" }, "Stop");
      stop.addEventListener("click", () =>
        act(stop, status, async () => finish(await post(`${path}/${encodeURIComponent(watched)}/abort`))),
      );
      progress.replaceChildren(
        el(
          "div",
          { class: "panel" },
          el("p"),
          el("progress", { "aria-label": "Progress" }),
          mayChange ? stop : null,
        ),
      );
    }
    const [verb, noun] = VERBS[action.action];
    progress.querySelector("p").textContent =
      `${verb} ${many(action.total, noun)}: ${action.done} done${failedOf(action)}`;
    Object.assign(progress.querySelector("progress"), { max: action.total, value: action.done });
  }

  function leave() {
    isLeft = true;
    clearTimeout(timer);
  }

  return { element: el("div", {}, progress, status), begin, load, leave };
}

export const pathOf = (tenant) => at`tenants/${tenant}/bulk-actions`;

const failedOf = ({ failed }) => (failed ? `, ${failed} failed` : "");

const isRecent = ({ ended_at: at }) => at && Date.now() - new Date(at) < MINUTES_REMEMBERED * 60000;

const isUnfinished = ({ state }) => state === "WAITING" || state === "RUNNING";

function summary({ action, done, failed, failures, state, total }) {
  const [, noun, verb] = VERBS[action];
  const reasons = failures
    .slice(0, FAILURES_SHOWN_MAX)
    .map(({ request_id: id, reason }) => `${id.slice(0, 8)}: ${reason}`);
  const spared = state === "ABORTED" ? `; ${many(total - done, "request")} not changed` : "";
  const others = failed ? `, ${failed} failed. ${reasons.join("; ")}` : ".";
  return banner(failed ? "bad" : "good", `${many(done - failed, noun)} ${verb}${spared}${others}`);
}
