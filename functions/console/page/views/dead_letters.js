// Dead letters: messages that could not be processed, by queue and reason; sent back once their cause is mended.

import { at, get, post } from "../api.js";
import { act, ask, banner, el, panel } from "../dom.js";
import { count, many, time } from "../format.js";
import { table } from "../table.js";

const SHOWN = 20;
const REASON_LENGTH_MAX = 200;
const SECONDS = 60;
const UNDELIVERED = /-undelivered-dlq$/;

export function show(view, { mayChange, reload }) {
  const status = el("div", { role: "status" });
  const letters = el("div");
  const read = panel("Letters", letters);
  read.hidden = true;
  const list = listOf(mayChange);
  list.element.addEventListener("click", ({ target }) => {
    const { does, queue, reason } = target.dataset ?? {};
    if (does)
      act(target, status, () => (does === "read" ? showLetters(queue, reason) : change(does, queue, reason)));
  });
  view.append(panel("Queues", list.element, el("div", { class: "notice" }, status)), read);

  async function showLetters(queue, reason) {
    const { items } = await get(at`service/dead-letters/${queue}`, { reason: part(reason), limit: SHOWN });
    letters.replaceChildren(
      el(
        "p",
        { class: "quiet" },
        `${queue}: ${many(items.length, "letter")} with the reason “${reason}”, oldest first`,
      ),
      ...items.map(letterOf),
    );
    read.hidden = false;
    letters.tabIndex = -1;
    letters.focus();
  }

  async function change(verb, queue, reason) {
    const body = { reason: part(reason) };
    const path = at`service/dead-letters/${queue}/${verb}`;
    const { letters: number, is_complete: isComplete } = await post(path, { ...body, dry_run: true });
    const those = isComplete ? many(number, "letter") : `at least ${many(number, "letter")}`;
    const title = verb === "redrive" ? `Send ${those} back` : `Delete ${those}`;
    const text = [
      el(
        "p",
        {},
        verb === "redrive"
          ? `They go to the queue that they came from, and are tried again: ${reason}`
          : `They cannot be restored: ${reason}`,
      ),
    ];
    if (!(await ask({ title: `${title}?`, text, action: title, danger: verb === "drop" }))) return;
    const done = await post(path, body);
    const words = verb === "redrive" ? "sent back. Those that fail again come back here" : "deleted";
    status.replaceChildren(
      banner(
        "good",
        `${many(done.letters, "letter")} ${words}; about ${count(done.remaining)} remain in the queue.`,
      ),
    );
    read.hidden = true;
    await reload();
  }

  async function load({ isAsked }) {
    const { items } = await get("v1/service/dead-letters");
    list.update(items.flatMap(rowsOf), { isAsked });
  }
  return { load, seconds: SECONDS };
}

/** Return what finds the letters of a group. */
const part = (reason) => reason.slice(0, REASON_LENGTH_MAX);

function rowsOf({ queue, letters, groups, unread }) {
  const rows = groups.map((group) => ({ queue, ...group }));
  if (unread > 0) rows.push({ queue, letters: unread, reason: "not looked at: there are too many" });
  return rows.length || letters ? rows : [{ queue, letters: 0, reason: null }];
}

function listOf(mayChange) {
  const button = (row, does, text) =>
    el(
      "button",
      {
        type: "button",
        data: { does, queue: row.queue, reason: row.reason },
        class: does === "drop" ? "danger" : "",
        "aria-label": `${text}: ${row.queue}, ${row.reason}`,
      },
      text,
    );
  const buttons = (row) =>
    row.oldest
      ? el(
          "div",
          { class: "buttons" },
          button(row, "read", "Show"),
          mayChange && !UNDELIVERED.test(row.queue) ? button(row, "redrive", "Send back") : null,
          mayChange ? button(row, "drop", "Delete") : null,
        )
      : null;
  return table({
    caption: "Messages that could not be processed, by reason",
    key: (row) => `${row.queue} ${row.reason}`,
    empty: "There are no dead-letter queues.",
    columns: [
      { title: "Queue", head: true, cell: (row) => row.queue },
      { title: "Letters", class: "number", cell: (row) => count(row.letters) },
      { title: "Reason", class: "text", cell: (row) => row.reason ?? "–" },
      { title: "Oldest", cell: (row) => time(row.oldest) },
      { title: "Actions", cell: buttons },
    ],
  });
}

function letterOf({ id, sent_at: sent, reason, body }) {
  return el(
    "details",
    {},
    el("summary", {}, time(sent, { withSeconds: true }), " ", reason || "no reason"),
    el("p", { class: "quiet" }, id),
    el("pre", { class: "log", tabindex: "0", "aria-label": `Letter ${id}` }, body),
  );
}
