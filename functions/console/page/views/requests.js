// A tenant's requests, newest first, with filters in the address; several can be cancelled at once.

import { at, get, post } from "../api.js";
import { ask, el, field, select } from "../dom.js";
import { badge, between, duration, isActive, many, STATES, stateName, time, usd } from "../format.js";
import { table } from "../table.js";

const PAGE = 25;
const NAMED_MAX = 20;

export const title = () => "Requests";

export function show(view, context) {
  const { tenant, query, setQuery, mayChange, link } = context;
  const state = select([["", "All"], ...STATES.map((name) => [name, stateName(name)])], query.state || "");
  const dataSet = el("input", {
    value: query.data_set || "",
    size: "16",
    autocomplete: "off",
    spellcheck: "false",
  });
  const cancel = el(
    "button",
    { type: "button", class: "danger", disabled: true, onclick: cancelSelected },
    "Cancel selected",
  );
  const more = el("button", { type: "button", hidden: true, onclick: showMore }, "Show more");
  let later = [],
    next = null;

  const list = table({
    caption: `Requests of ${tenant}`,
    key: (row) => row.request_id,
    empty: "There are no such requests. Upload a file to a data set to have a model trained.",
    picks: mayChange
      ? {
          can: (row) => isActive(row.state),
          name: (row) => `request ${row.request_id.slice(0, 8)}`,
          changed: (rows) => {
            cancel.disabled = rows.length === 0;
            cancel.textContent = rows.length ? `Cancel ${many(rows.length, "request")}` : "Cancel selected";
          },
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
      { title: "What happened", class: "text", cell: words },
    ],
  });

  const filters = () => ({ limit: PAGE, state: state.value, data_set: dataSet.value.trim() });

  async function load({ isAsked }) {
    const page = await get(at`tenants/${tenant}/requests`, filters());
    const first = new Set(page.items.map((row) => row.request_id));
    if (!later.length) next = page.next;
    list.update([...page.items, ...later.filter((row) => !first.has(row.request_id))], { isAsked });
    more.hidden = next === null;
  }

  async function showMore() {
    const page = await get(at`tenants/${tenant}/requests`, { ...filters(), cursor: next });
    later = [...later, ...page.items];
    next = page.next;
    await context.reload();
  }

  function filter() {
    later = [];
    setQuery({ state: state.value, data_set: dataSet.value.trim() });
    context.reload();
  }

  async function cancelSelected() {
    const rows = list.selected();
    const names = rows
      .slice(0, NAMED_MAX)
      .map((row) => el("li", {}, `${row.request_id.slice(0, 8)}, ${row.data_set}: ${stateName(row.state)}`));
    const rest = rows.length > NAMED_MAX ? [el("p", {}, `and ${many(rows.length - NAMED_MAX, "more")}`)] : [];
    const text = [
      el("p", {}, "What waits does not start; what runs is stopped, and costs what it has cost until then."),
      el("ul", {}, names),
      ...rest,
    ];
    if (
      !(await ask({
        title: `Cancel ${many(rows.length, "request")}?`,
        text,
        action: `Cancel ${many(rows.length, "request")}`,
        danger: true,
      }))
    )
      return;
    await each(rows);
  }

  async function each(rows) {
    let isAborted = false,
      done = 0;
    const failed = [];
    const progress = el("progress", { max: rows.length, value: 0, "aria-label": "Requests cancelled" });
    const text = el("span", {}, "");
    const bar = el(
      "div",
      { class: "panel", role: "status" },
      text,
      progress,
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            isAborted = true;
          },
        },
        "Stop here",
      ),
    );
    view.prepend(bar);
    for (const row of rows) {
      if (isAborted) break;
      text.textContent = `Cancelling: ${done} of ${rows.length}`;
      try {
        await post(at`tenants/${tenant}/requests/${row.request_id}/cancel`);
      } catch (error) {
        failed.push(`${row.request_id.slice(0, 8)}: ${error.message}`);
      }
      done += 1;
      progress.value = done;
    }
    list.clear();
    const others = failed.length ? `, ${failed.length} not: ${failed.slice(0, 3).join("; ")}` : "";
    const summary = `${many(done - failed.length, "request")} cancelled${others}.`;
    bar.replaceChildren(
      el("span", {}, summary),
      " ",
      el("button", { type: "button", class: "link", onclick: () => bar.remove() }, "Dismiss"),
    );
    await context.reload();
  }

  state.addEventListener("change", filter);
  dataSet.addEventListener("change", filter);
  view.append(
    el(
      "div",
      { class: "fields" },
      field("State", state),
      field("Data set", dataSet),
      mayChange
        ? el(
            "div",
            { class: "field buttons" },
            cancel,
            el("a", { class: "button", href: link("data-sets") }, "Upload or train"),
          )
        : null,
    ),
    el("div", { class: "panel tall" }, list.element, el("div", { class: "more" }, more)),
  );
  return load;
}

const now = () => new Date().toISOString();

function cost(row) {
  const known = row.receipt.result?.cost_usd;
  if (known) return usd(known);
  return row.expected?.usd && isActive(row.state)
    ? el("span", { class: "quiet" }, `≈ ${usd(row.expected.usd)}`)
    : "–";
}

function words(row) {
  const result = row.receipt.result;
  if (row.state === "SUCCEEDED" && typeof result?.quality === "number")
    return `${result.quality_metric} ${result.quality.toFixed(3)}`;
  if (row.state === "QUEUED")
    return row.receipt.waiting?.reason || row.receipt.reason || el("span", { class: "quiet" }, "see why");
  return row.receipt.reason || row.receipt.cause;
}
