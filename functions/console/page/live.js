// Keeps a view up to date: it is loaded again every few seconds, unless it is paused or nobody looks at it.

import { Offline, SignedOut } from "./api.js";
import { banner, el } from "./dom.js";

const SECONDS_AFTER_ERROR_MAX = 60;
const OFFLINE = "There is no connection to the service. What is shown is the last data received. Trying again…";

/**
 * Return { element, banners, now, stop }: what shows and controls the updates of one view. `load` is told whether
 * the user has asked for it ({ isAsked }); `loaded` is called after each time; `seconds` between them, 0 for once.
 */
export function live({ load, loaded, seconds }) {
  const updated = el("span", { class: "updated" }, "Loading…");
  const pause = el("button", { type: "button", onclick: toggle, hidden: !seconds }, "Pause updates");
  const banners = el("div", { class: "banners", role: "status" });
  const state = { timer: null, isPaused: false, isStopped: false, errors: 0, running: null, wait: 0 };

  function schedule() {
    clearTimeout(state.timer);
    const pace = seconds || (state.errors ? 10 : 0);
    const wait = state.errors ? Math.max(state.wait, pace * 2 ** Math.min(state.errors - 1, 5)) : pace;
    if (!pace || state.isStopped || state.isPaused) return;
    state.timer = setTimeout(tick, Math.min(wait, SECONDS_AFTER_ERROR_MAX) * 1000);
  }

  function tick() {
    // When the page is looked at again, `wake` goes on.
    if (!document.hidden && state.running === null) now(false);
  }

  /** Load now; after what is being loaded, which may be of other filters. */
  function now(isAsked = true) {
    const mine = (state.running ?? Promise.resolve()).then(() => run(isAsked));
    state.running = mine;
    mine.finally(() => {
      if (state.running === mine) state.running = null;
    });
    return mine;
  }

  async function run(isAsked) {
    if (state.isStopped) return;
    try {
      await load({ isAsked });
      state.errors = 0;
      if (state.isStopped) return;
      banners.replaceChildren();
      updated.replaceChildren(`Updated ${new Date().toLocaleTimeString("en-GB")}`);
      loaded();
    } catch (error) {
      if (!state.isStopped) failed(error);
    } finally {
      schedule();
    }
  }

  function failed(error) {
    if (error instanceof SignedOut) return stop();
    state.errors += 1;
    state.wait = error.retryAfter ?? 0;
    const text = error instanceof Offline ? OFFLINE : error.message;
    if (banners.textContent !== text) banners.replaceChildren(banner("bad", text));
    if (updated.textContent === "Loading…") updated.replaceChildren("Not loaded yet");
    if (!(error instanceof Offline) && error.status === undefined) console.error(error);
  }

  function toggle() {
    state.isPaused = !state.isPaused;
    pause.textContent = state.isPaused ? "Resume updates" : "Pause updates";
    if (state.isPaused) clearTimeout(state.timer);
    else now(false);
  }

  function wake() {
    if (!document.hidden && !state.isPaused && (seconds || state.errors)) now(false);
  }

  function stop() {
    state.isStopped = true;
    clearTimeout(state.timer);
    document.removeEventListener("visibilitychange", wake);
    removeEventListener("online", wake);
  }

  document.addEventListener("visibilitychange", wake);
  addEventListener("online", wake);
  return { element: el("div", { class: "live" }, updated, pause), banners, now, stop };
}
