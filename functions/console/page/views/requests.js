// A tenant's requests, newest first, with filters in the address; several can be cancelled at once.

import { ApiError, at, get, post, SignedOut } from "../api.js";
import { act, ask, banner, el, field, select } from "../dom.js";
import { badge, between, duration, isActive, many, STATES, stateName, time, usd } from "../format.js";
import { pages } from "../pages.js";
import { table } from "../table.js";

const PAGE = 25;
const NAMED_MAX = 20;
const WAITS_MAX = 5;

export function show(view, context) {
  const { tenant, query, setQuery, mayChange, link } = context;
  const state = select([["", "All"], ...STATES.map((name) => [name, stateName(name)])], query.state || "");
  const dataSet = el("input", {
    value: query.data_set || "",
    size: "16",
    autocomplete: "off",
    spellcheck: "false",
  });
  const cancel = el("button", { type: "button", class: "danger", disabled: true }, "Cancel selected");
  const more = el("button", { type: "button", hidden: true }, "Show more");
  const status = el("div", { role: "status" });
  const progress = el("div");
  const filters = () => ({ state: state.value, data_set: dataSet.value.trim() });
  const list = listOf(context, (rows) => {
    cancel.disabled = rows.length === 0;
    cancel.textContent = rows.length ? `Cancel ${many(rows.length, "request")}` : "Cancel selected";
  });
  const book = pages({
    read: (cursor) => get(at`tenants/${tenant}/requests`, { limit: PAGE, ...filters(), cursor }),
    key: (row) => row.request_id,
  });
  let cancelling = null;

  async function load({ isAsked }) {
    list.update(await book.load(), {
      isAsked,
      empty: filters().state || filters().data_set ? "There are no such requests." : null,
    });
    more.hidden = !book.hasMore();
  }

  function filter() {
    book.reset();
    setQuery(filters());
    context.reload();
  }

  more.addEventListener("click", () =>
    act(more, status, async () => {
      await book.more();
      list.update(book.items(), { isAsked: true });
      more.hidden = !book.hasMore();
    }),
  );
  cancel.addEventListener("click", async () => {
    const rows = list.selected();
    if (cancelling || !(await confirmed(rows))) return;
    cancelling = canceller(tenant, rows, progress);
    const { done, failed } = await cancelling.run();
    cancelling = null;
    list.pick(failed.map(({ row }) => row.request_id));
    status.replaceChildren(summary(done, failed));
    await context.reload();
  });
  state.addEventListener("change", filter);
  dataSet.addEventListener("change", filter);
  view.append(
    el(
      "div",
      { class: "fields" },
      field("State", state),
      field("Data set", dataSet, "Its full name"),
      mayChange
        ? el(
            "div",
            { class: "field buttons" },
            cancel,
            el("a", { class: "button", href: link("data-sets") }, "Upload or train"),
          )
        : null,
    ),
    progress,
    status,
    el("div", { class: "panel" }, list.element, el("div", { class: "more" }, more)),
  );
  return { load, leave: () => cancelling?.stop() };
}

function listOf({ tenant, mayChange, link }, changed) {
  return table({
    caption: `Requests of ${tenant}, newest first`,
    key: (row) => row.request_id,
    empty: "There are no requests yet. Upload a file to a data set to have a model trained.",
    picks: mayChange
      ? {
          can: (row) => isActive(row.state),
          name: (row) => `request ${row.request_id.slice(0, 8)}`,
          all: "Select all requests that can be cancelled",
          changed,
        }
      : null,
    columns: [
      {
        title: "Request",
        head: true,
        cell: (row) => el("a", { href: link("requests", row.request_id) }, row.request_id.slice(0, 8)),
      },
      { title: "Data set", cell: (row) => row.data_set },
      { title: "State", cell: (row) => badge(row.state) },
      { title: "Arrived", cell: (row) => time(row.arrived_at) },
      {
        title: "Waited",
        class: "number",
        cell: (row) => duration(between(row.arrived_at, row.admitted_at || row.finished_at || now())),
      },
      {
        title: "Ran",
        class: "number",
        cell: (row) => (row.admitted_at ? duration(between(row.admitted_at, row.finished_at || now())) : "–"),
      },
      { title: "Cost", class: "number", cell: cost },
      { title: "What happened", class: "text", cell: (row) => words(row, link) },
    ],
  });
}

const now = () => new Date().toISOString();

function cost(row) {
  const known = row.receipt.result?.cost_usd;
  if (known) return usd(known);
  return row.expected?.usd && isActive(row.state)
    ? el("span", { class: "quiet" }, `≈ ${usd(row.expected.usd)}`)
    : "–";
}

function words(row, link) {
  const { receipt } = row;
  const result = receipt.result;
  if (row.state === "SUCCEEDED" && typeof result?.quality === "number")
    return `${result.quality_metric} ${result.quality.toFixed(3)}`;
  if (row.state === "QUEUED") {
    const why = receipt.waiting?.reason || receipt.reason;
    return [
      why ? `${why}; ` : "",
      el(
        "a",
        {
          href: link("requests", row.request_id),
          "aria-label": `Why request ${row.request_id.slice(0, 8)} waits`,
        },
        "why it waits",
      ),
    ];
  }
  if (receipt.superseded_by)
    return [
      "replaced by ",
      el("a", { href: link("requests", receipt.superseded_by) }, receipt.superseded_by.slice(0, 8)),
    ];
  return receipt.reason || (row.state === "CANCELLED" ? "cancelled before it started" : `after ${receipt.cause}`);
}

async function confirmed(rows) {
  const verb = `Cancel ${many(rows.length, "request")}`;
  const names = rows
    .slice(0, NAMED_MAX)
    .map((row) => el("li", {}, `${row.request_id.slice(0, 8)}, ${row.data_set}: ${stateName(row.state)}`));
  const rest = rows.length > NAMED_MAX ? [el("p", {}, `and ${rows.length - NAMED_MAX} more`)] : [];
  const text = [
    el("p", {}, "Waiting requests will not start. Running ones are stopped; the cost so far is still charged."),
    el("ul", {}, names),
    ...rest,
  ];
  return ask({ title: `${verb}?`, text, action: verb, danger: true });
}

/** Return { run, stop }: cancels requests one after the other, until it is stopped. */
function canceller(tenant, rows, holder) {
  let isStopped = false;
  async function cancelled(row) {
    for (let waits = 0; ; waits += 1) {
      try {
        return await post(at`tenants/${tenant}/requests/${row.request_id}/cancel`);
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 429 || waits === WAITS_MAX || isStopped) throw error;
        await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 5) * 1000));
        if (isStopped) throw error;
      }
    }
  }
  async function run() {
    const failed = [];
    const progress = el("progress", { max: rows.length, value: 0, "aria-label": "Requests cancelled" });
    const stop = el(
      "button",
      {
        type: "button",
        onclick: () => {
          isStopped = true;
        },
      },
      "Stop cancelling",
    );
    holder.replaceChildren(el("div", { class: "panel" }, progress, stop));
    let done = 0;
    for (const row of rows) {
      if (isStopped) break;
      try {
        await cancelled(row);
        done += 1;
      } catch (error) {
        failed.push({ row, error });
        if (error instanceof SignedOut) break;
      }
      progress.value = done + failed.length;
    }
    holder.replaceChildren();
    return { done, failed };
  }
  return {
    run,
    stop: () => {
      isStopped = true;
    },
  };
}

function summary(done, failed) {
  const reasons = failed.slice(0, 3).map(({ row, error }) => `${row.request_id.slice(0, 8)}: ${error.message}`);
  const others = failed.length ? `, ${failed.length} failed. ${reasons.join("; ")}` : ".";
  return banner(failed.length ? "bad" : "good", `${many(done, "request")} cancelled${others}`);
}
