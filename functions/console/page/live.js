// Keeps a view up to date: it is loaded again every few seconds, unless it is paused or nobody looks at it.

import { Offline, SignedOut } from "./api.js";
import { el } from "./dom.js";

const SECONDS = 10;
const SECONDS_AFTER_ERROR_MAX = 60;

/** Return { element, banners, start, stop, now }: what shows and controls the updates of one view. */
export function live({ load, signedOut, loaded = () => {}, seconds = SECONDS }) {
  const updated = el("span", { class: "updated" }, "Loading…");
  const pause = el("button", { type: "button", "aria-pressed": "false", onclick: toggle }, "Pause updates");
  const banners = el("div", { class: "banners", role: "status" });
  let timer = null,
    isPaused = false,
    isStopped = false,
    errors = 0,
    running = null;

  function schedule() {
    clearTimeout(timer);
    const wait = errors ? Math.min(seconds * 2 ** (errors - 1), SECONDS_AFTER_ERROR_MAX) : seconds;
    if (!isStopped && !isPaused) timer = setTimeout(tick, wait * 1000);
  }

  function tick() {
    // When the page is looked at again, `wake` goes on.
    if (!document.hidden && running === null) now(false);
  }

  /** Load now; after what is being loaded, which may be of other filters. */
  function now(isAsked = true) {
    const mine = (running ?? Promise.resolve())
      .then(() => run(isAsked))
      .finally(() => {
        if (running === mine) running = null;
      });
    running = mine;
    return mine;
  }

  async function run(isAsked) {
    if (isStopped) return;
    try {
      await load({ isAsked });
      loaded();
      errors = 0;
      if (isStopped) return;
      banners.replaceChildren();
      updated.replaceChildren(`Updated ${new Date().toLocaleTimeString("en-GB")}`);
    } catch (error) {
      if (isStopped) return;
      if (error instanceof SignedOut) {
        stop();
        signedOut();
        return;
      }
      errors += 1;
      const text =
        error instanceof Offline
          ? "There is no connection to the service. What you see is what it last answered; it is tried again."
          : error.message;
      const message = el("p", { class: "banner bad" }, text);
      if (banners.textContent !== text) banners.replaceChildren(message);
      if (updated.textContent === "Loading…") updated.replaceChildren("Not loaded yet");
      if (!(error instanceof Offline) && error.status === undefined) console.error(error);
    } finally {
      schedule();
    }
  }

  function toggle() {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    pause.textContent = isPaused ? "Resume updates" : "Pause updates";
    if (isPaused) clearTimeout(timer);
    else now(false);
  }

  function wake() {
    if (!document.hidden && !isPaused && !isStopped) now(false);
  }

  function stop() {
    isStopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", wake);
    removeEventListener("online", wake);
  }

  document.addEventListener("visibilitychange", wake);
  addEventListener("online", wake);
  return { element: el("div", { class: "live" }, updated, pause), banners, start: now, now, stop };
}
