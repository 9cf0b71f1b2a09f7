// What a request ran: its attempts with their steps, and what a step printed.

import { ApiError, at, get } from "../api.js";
import { act, banner, el, panel } from "../dom.js";
import { badge, between, duration, usd } from "../format.js";
import { table } from "../table.js";

const LINES = 500;
const LINES_SHOWN_MAX = 5000;
const KINDS = { Succeeded: "good", Failed: "bad", Executing: "busy", Starting: "busy", Stopping: "warn" };

/** Return { element, load(request) } of a request. */
export function runsOf({ tenant, id }) {
  const attempts = el("div");
  const status = el("div", { role: "status" });
  const log = logOf(tenant, id);
  const element = panel("Steps", attempts, status, log.element);
  const shown = new Map();
  element.hidden = true;
  attempts.addEventListener("click", ({ target }) => {
    const { step, attempt } = target.dataset ?? {};
    if (step) act(target, status, () => log.open(step, attempt, target));
  });

  async function load(request) {
    element.hidden = !request.admitted_at;
    if (element.hidden) return;
    const { items } = await get(at`tenants/${tenant}/requests/${id}/attempts`);
    for (const attempt of items) {
      if (!shown.has(attempt.attempt)) {
        shown.set(attempt.attempt, stepsOf(attempt.attempt));
        attempts.append(shown.get(attempt.attempt).element);
      }
      shown.get(attempt.attempt).update(attempt, items.length > 1);
    }
    if (!items.length) attempts.replaceChildren(el("p", { class: "quiet" }, "No steps are recorded."));
    await log.follow();
  }
  return { element, load };
}

/** Return { element, update } of the steps of an attempt. */
function stepsOf(number) {
  const title = el("h3", { hidden: true });
  const list = table({
    key: (row) => row.name,
    empty: "No step has begun yet.",
    columns: [
      { title: "Step", head: true, cell: (row) => row.name },
      {
        title: "State",
        cell: (row) => el("span", { class: `badge ${KINDS[row.status] ?? ""}` }, row.status),
      },
      {
        title: "Took",
        class: "number",
        cell: (row) => duration(between(row.started_at, row.ended_at ?? (row.started_at ? now() : null))),
      },
      { title: "Instances", cell: instances },
      { title: "Cost", class: "number", cell: (row) => (row.usd === null ? "–" : usd(row.usd)) },
      { title: "Message", class: "text", cell: words },
      { title: "Log", cell: (row) => (row.has_log ? button(row.name, number) : "–") },
    ],
  });
  function update(attempt, isOneOfSeveral) {
    title.hidden = !isOneOfSeveral;
    title.replaceChildren(`Attempt ${number} `, badge(attempt.state));
    list.update(attempt.steps);
  }
  return { element: el("div", {}, title, list.element), update };
}

const now = () => new Date().toISOString();

const instances = ({ instance_type: type, instance_count: number, is_spot: isSpot }) =>
  type ? `${number} × ${type}${isSpot ? ", spot" : ""}` : "–";

const button = (step, attempt) =>
  el(
    "button",
    { type: "button", data: { step, attempt }, "aria-label": `Log of ${step}, attempt ${attempt}` },
    "Show",
  );

function words({ failure, remarks, metrics }) {
  const measured = metrics.map(({ name, value }) => `${name} ${value === null ? "not a number" : format(value)}`);
  const all = [failure, ...remarks, ...measured].filter(Boolean);
  return all.length ? all.map((text) => el("div", {}, text)) : "–";
}

const format = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(4));

/** Return { element, open, follow }: what a step of an attempt printed. */
function logOf(tenant, id) {
  const title = el("h3");
  const lines = el("pre", { class: "log", tabindex: "0", role: "region" });
  const note = el("p", { class: "quiet", role: "status" });
  const more = el("button", { type: "button" }, "Show more lines");
  const close = el("button", { type: "button" }, "Close the log");
  const element = el("div", { hidden: true }, title, lines, note, el("div", { class: "buttons" }, more, close));
  let reading = null;
  let opened = {};
  let opener = null;
  more.addEventListener("click", () => act(more, note, read));
  close.addEventListener("click", () => {
    element.hidden = true;
    opener?.focus();
  });

  async function open(step, attempt, button) {
    opener = button;
    opened = { step, attempt, cursor: null, count: 0 };
    title.textContent = `Log of ${step}, attempt ${attempt}`;
    lines.setAttribute("aria-label", title.textContent);
    lines.replaceChildren();
    note.replaceChildren();
    element.hidden = false;
    await read();
    lines.focus();
  }

  /** Read the next lines; one call at a time, so that none is shown twice. */
  function read() {
    reading ??= next().finally(() => {
      reading = null;
    });
    return reading;
  }

  async function next() {
    const mine = opened;
    const { step, attempt, cursor } = mine;
    const page = await get(at`tenants/${tenant}/requests/${id}/logs`, { step, attempt, limit: LINES, cursor });
    if (mine !== opened) return;
    lines.append(...page.items.map(({ at: when, text }) => el("span", { title: when }, `${text}\n`)));
    mine.count += page.items.length;
    mine.cursor = page.next;
    mine.isAtEnd = page.items.length < LINES;
    more.hidden = mine.isAtEnd || mine.count >= LINES_SHOWN_MAX;
    note.replaceChildren(...state(mine));
  }

  function state({ count, cursor, isAtEnd }) {
    if (count >= LINES_SHOWN_MAX) return [banner("", `Only the first ${LINES_SHOWN_MAX} lines are shown here.`)];
    if (!isAtEnd) return [];
    if (count === 0) return ["It has printed nothing."];
    return cursor === null ? ["End of log."] : ["New lines appear while the step runs."];
  }

  /** Read what was printed since, where the end is shown. */
  async function follow() {
    const { cursor, count, isAtEnd } = opened;
    if (element.hidden || !isAtEnd || cursor === null || count >= LINES_SHOWN_MAX) return;
    try {
      await read();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 429) throw error;
    }
  }
  return { element, open, follow };
}
