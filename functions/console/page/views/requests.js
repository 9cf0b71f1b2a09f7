// A tenant's requests, newest first, with filters in the address; several can be cancelled at once.

import { at, get, post } from "../api.js";
import { bulkActions, pathOf } from "../bulk.js";
import { act, ask, el, field, select } from "../dom.js";
import { badge, between, duration, isActive, many, STATES, stateName, time, usd } from "../format.js";
import { pages, table } from "../table.js";

const PAGE = 25;
const NAMED_MAX = 20;
const NOTHING_TO_CANCEL = "None of these requests waits or runs.";
const NOTHING_TO_RETRY = "None of these requests is a training that ended without a model.";
const CAN_BE_TRIED_AGAIN = ["FAILED", "STOPPED", "CANCELLED", "REJECTED"];

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
  const all = el("button", { type: "button" });
  const bulk = bulkActions({
    path: pathOf(tenant),
    mayChange,
    ended: ({ failures }) => {
      list.pick(failures.map((each) => each.request_id));
      return context.reload();
    },
  });
  const filters = () => ({ state: state.value, data_set: dataSet.value.trim() });
  const list = listOf(context, (rows) => {
    cancel.disabled = rows.length === 0;
    cancel.textContent = rows.length ? `Cancel ${many(rows.length, "request")}` : "Cancel selected";
  });
  const book = pages({
    read: (cursor) => get(at`tenants/${tenant}/requests`, { limit: PAGE, ...filters(), cursor }),
    key: (row) => row.request_id,
  });
  async function load({ isAsked }) {
    list.update(await book.load(), {
      isAsked,
      empty: filters().state || filters().data_set ? "There are no such requests." : null,
    });
    more.hidden = !book.hasMore();
    if (mayChange) await bulk.load();
  }

  /** Let the button for all say what it does to those that the filters select. */
  function name() {
    const isEnded = CAN_BE_TRIED_AGAIN.includes(state.value);
    all.hidden = state.value !== "" && !isEnded && !isActive(state.value);
    all.dataset.action = isEnded ? "retry" : "cancel";
    all.textContent = isEnded ? "Try all again" : "Cancel all";
    all.className = isEnded ? "" : "danger";
  }

  function filter() {
    book.reset();
    name();
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
  cancel.addEventListener("click", () =>
    act(cancel, status, async () => {
      const rows = list.selected();
      if (!(await confirmed(rows))) return;
      await bulk.begin({ action: "cancel", request_ids: rows.map((row) => row.request_id) });
    }),
  );
  all.addEventListener("click", () =>
    act(all, status, async () => {
      const filter = Object.fromEntries(Object.entries(filters()).filter(([, value]) => value));
      const body = { action: all.dataset.action, filter };
      if (await confirmedAll(await post(pathOf(tenant), { ...body, dry_run: true }), filter))
        await bulk.begin(body);
    }),
  );
  state.addEventListener("change", filter);
  dataSet.addEventListener("change", filter);
  view.append(
    el(
      "div",
      { class: "fields" },
      field("State", state),
      field("Data set", dataSet, "Exact name"),
      mayChange
        ? el(
            "div",
            { class: "field buttons" },
            cancel,
            all,
            el("a", { class: "button", href: link("data-sets") }, "Upload or train"),
          )
        : null,
    ),
    bulk.element,
    status,
    el("div", { class: "panel" }, list.element, el("div", { class: "more" }, more)),
  );
  name();
  return { load, leave: bulk.leave };
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
      { title: "Data set", cell: (row) => [row.data_set, overridden(row)] },
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

/** Return what a request was asked for with, in place of the settings of its data set. */
function overridden({ overrides }) {
  if (!overrides) return null;
  const { algorithm, hyperparameters, tuning } = overrides;
  const values = Object.entries(hyperparameters).map(([name, value]) => `${name}=${value}`);
  return el(
    "small",
    { class: "below" },
    [algorithm, ...values, tuning && `${tuning.trials} trials`].filter(Boolean).join(", "),
  );
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

/** Ask whether something is to be done to all requests that the filters select, of which a dry run tells. */
async function confirmedAll({ action, total, is_complete: isComplete }, { state, data_set: dataSet }) {
  if (total === 0) throw new Error(action === "cancel" ? NOTHING_TO_CANCEL : NOTHING_TO_RETRY);
  const which = [state ? `state is ${stateName(state)}` : null, dataSet ? `data set is ${dataSet}` : null].filter(
    Boolean,
  );
  const verb = action === "cancel" ? `Cancel ${many(total, "request")}` : `Start ${many(total, "training")}`;
  const words =
    action === "cancel"
      ? "Waiting requests will not start. Running ones are stopped; the cost so far is still charged."
      : "On the newest data: one training for each data set and each set of overrides, at the usual cost.";
  const text = [
    el("p", {}, words),
    el("p", {}, which.length ? `Filter: ${which.join(", ")}.` : "This includes all requests of the tenant."),
    isComplete ? null : el("p", {}, "There are more: repeat it for the rest."),
  ].filter(Boolean);
  return ask({ title: `${verb}?`, text, action: verb, danger: action === "cancel" });
}
