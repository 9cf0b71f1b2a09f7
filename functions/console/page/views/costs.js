// What a tenant has spent in a month, by data set, and how its budget stands.

import { at, get } from "../api.js";
import { el, field, fill, panel, select } from "../dom.js";
import { count, figures, usd } from "../format.js";
import { table } from "../table.js";

const MONTHS = 13;

export const title = () => "Costs";

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
    empty: "Nothing was spent in this month.",
    columns: [
      { title: "Data set", head: true, cell: (row) => row.data_set ?? "All" },
      { title: "Runs", class: "number", cell: (row) => count(row.runs) },
      { title: "Succeeded", class: "number", cell: (row) => count(row.succeeded) },
      { title: "Failed", class: "number", cell: (row) => count(row.failed) },
      { title: "Trainings", class: "number", cell: (row) => usd(row.usd) },
      { title: "Predictions", class: "number", cell: (row) => count(row.calls) },
      { title: "Their cost", class: "number", cell: (row) => usd(row.inference_usd) },
    ],
  });
  month.addEventListener("change", () => {
    setQuery({ month: month.value });
    context.reload();
  });
  view.append(
    el("div", { class: "fields" }, field("Month (UTC)", month)),
    el("div", { class: "panels" }, panel("Spent", total), panel("Budget of this month", budget)),
    panel("By data set", el("div", { class: "low" }, list.element)),
  );

  return async ({ isAsked }) => {
    const [costs, left] = await Promise.all([
      get(at`tenants/${tenant}/costs`, { month: month.value }),
      get(at`tenants/${tenant}/budget`),
    ]);
    const all = Number(costs.total.usd) + Number(costs.total.inference_usd);
    fill(
      total,
      figures([
        [`In ${costs.month}`, usd(String(all)), el("small", {}, "at list prices")],
        ["Trainings and transforms", usd(costs.total.usd)],
        ["Predictions", usd(costs.total.inference_usd)],
        costs.total.unknown_steps
          ? ["Not known", count(costs.total.unknown_steps), el("small", {}, "steps without a price")]
          : null,
      ]),
    );
    list.update(costs.items.length ? [...costs.items, { ...costs.total, isTotal: true }] : [], { isAsked });
    fill(budget, left.budget ? bar(left.budget) : el("p", {}, "There is no budget for this tenant."));
  };
}

function bar({ limit_usd: limit, spent_usd: spent, reserved_usd: reserved }) {
  const share = (text) => `${Math.min(100, (100 * Number(text)) / (Number(limit) || 1))}%`;
  const left = Number(limit) - Number(spent) - Number(reserved);
  return [
    el(
      "div",
      { class: "meter", "aria-hidden": "true" },
      el("i", { style: { width: share(spent) } }),
      el("i", { class: "extra", style: { width: share(reserved) } }),
    ),
    figures([
      ["Limit", usd(limit)],
      ["Spent", usd(spent)],
      ["Reserved", usd(reserved), el("small", {}, "by what runs")],
      ["Left", usd(String(Math.max(0, left)))],
    ]),
  ];
}

function lastMonths() {
  const now = new Date();
  return Array.from({ length: MONTHS }, (_, back) =>
    new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1)).toISOString().slice(0, 7),
  );
}
