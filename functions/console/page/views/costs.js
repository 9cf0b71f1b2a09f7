// What a tenant has spent in a month, by data set, and how its budget stands.

import { at, get } from "../api.js";
import { act, download, el, field, fill, panel, select } from "../dom.js";
import { count, figures, lastMonths, usd } from "../format.js";
import { table } from "../table.js";

const SECONDS = 60;

/** Columns of what something cost in a month. */
export const AMOUNTS = [
  { title: "Runs", class: "number", cell: (row) => count(row.runs) },
  { title: "Succeeded", class: "number", cell: (row) => count(row.succeeded) },
  { title: "Failed", class: "number", cell: (row) => count(row.failed) },
  { title: "Stopped", class: "number", cell: (row) => count(row.stopped) },
  { title: "Cost of runs", class: "number", cell: (row) => usd(row.usd) },
  { title: "Predictions", class: "number", cell: (row) => count(row.calls) },
  { title: "Cost of predictions", class: "number", cell: (row) => usd(row.inference_usd) },
];

export function show(view, context) {
  const { tenant, query, setQuery } = context;
  const months = lastMonths();
  const month = select(
    months.map((each) => [each, each]),
    months.includes(query.month) ? query.month : months[0],
  );
  const budget = el("div", { class: "waits" });
  const total = el("div", { class: "waits" });
  const list = table({
    key: (row) => row.data_set ?? "",
    empty: "There are no costs in this month.",
    columns: [{ title: "Data set", head: true, cell: (row) => row.data_set ?? "All" }, ...AMOUNTS],
  });
  const status = el("div", { role: "status" });
  const statement = el("button", { type: "button" }, "Download the statement");
  month.addEventListener("change", () => {
    setQuery({ month: month.value });
    context.reload();
  });
  statement.addEventListener("click", () =>
    act(statement, status, async () => {
      const { month: of, page } = await get(at`tenants/${tenant}/statement`, { month: month.value });
      download(`${tenant}-${of}.html`, "text/html", page);
    }),
  );
  view.append(
    el("div", { class: "fields" }, field("Month (UTC)", month), el("div", { class: "field" }, statement)),
    status,
    el("div", { class: "panels" }, panel("Spent", total), panel("Budget of the current month", budget)),
    panel("By data set", list.element),
  );

  async function load({ isAsked }) {
    const [costs, left] = await Promise.all([
      get(at`tenants/${tenant}/costs`, { month: month.value }),
      get(at`tenants/${tenant}/budget`),
    ]);
    fill(total, spent(costs));
    list.update(costs.items.length ? [...costs.items, { ...costs.total, isTotal: true }] : [], { isAsked });
    fill(budget, left.budget ? bar(left.budget) : el("p", {}, "There is no budget for this tenant."));
  }
  return { load, seconds: SECONDS };
}

function spent({ month, total }) {
  const all = Number(total.usd) + Number(total.inference_usd);
  return figures([
    [`In ${month}`, usd(String(all)), el("small", {}, "at list prices")],
    ["Runs", usd(total.usd), el("small", {}, "trainings and batch transforms")],
    ["Predictions", usd(total.inference_usd), el("small", {}, "booked every hour")],
    total.unknown_steps
      ? ["Not known", count(total.unknown_steps), el("small", {}, "steps without a price")]
      : null,
  ]);
}

function bar({ limit_usd: limit, spent_usd: spentUsd, reserved_usd: reserved }) {
  const left = Number(limit) - Number(spentUsd) - Number(reserved);
  const whole = Math.max(Number(limit), Number(spentUsd) + Number(reserved)) || 1;
  const share = (text) => ({ width: `${(100 * Number(text)) / whole}%` });
  return [
    el(
      "div",
      { class: "meter", "aria-hidden": "true" },
      el("i", { style: share(spentUsd) }),
      el("i", { class: "extra", style: share(reserved) }),
    ),
    figures([
      ["Limit", usd(limit)],
      ["Spent", usd(spentUsd)],
      ["Reserved", usd(reserved), el("small", {}, "for running requests")],
      left < 0 ? ["Overspent", usd(String(-left))] : ["Left", usd(String(left))],
    ]),
  ];
}
