// What all tenants have spent in a month: by tenant, tier, data set or algorithm.

import { get } from "../api.js";
import { el, field, fill, panel, select } from "../dom.js";
import { count, figures, lastMonths, many, usd } from "../format.js";
import { table } from "../table.js";

const LIMIT = 100;
const SECONDS = 60;
const KINDS = { tenant: "Tenant", tier: "Tier", "data-set": "Data set", algorithm: "Algorithm" };

export function show(view, context) {
  const { query, setQuery, linkOf } = context;
  const months = lastMonths();
  const month = select(
    months.map((each) => [each, each]),
    months.includes(query.month) ? query.month : months[0],
  );
  const by = select(Object.entries(KINDS), Object.hasOwn(KINDS, query.by ?? "") ? query.by : "tenant");
  const total = el("div", { class: "waits" });
  const others = el("p", { class: "quiet" });
  const list = listOf(() => by.value, linkOf);
  for (const control of [month, by]) {
    control.addEventListener("change", () => {
      setQuery({ month: month.value, by: by.value });
      context.reload();
    });
  }
  view.append(
    el("div", { class: "fields" }, field("Month (UTC)", month), field("By", by)),
    panel("Spent", total),
    el("div", { class: "panel" }, list.element, others),
  );

  async function load({ isAsked }) {
    const costs = await get("v1/service/costs", { month: month.value, by: by.value, limit: LIMIT });
    fill(total, spent(costs));
    list.update(costs.items.length ? [...costs.items, { ...costs.total, name: "All", isTotal: true }] : [], {
      isAsked,
    });
    others.textContent = costs.others ? `${count(costs.others)} more, which cost less, are in the total.` : "";
  }
  return { load, seconds: SECONDS };
}

function spent({ month, total }) {
  const all = Number(total.usd) + Number(total.inference_usd);
  return figures([
    [`In ${month}`, usd(String(all)), el("small", {}, "at list prices")],
    ["Runs", usd(total.usd), el("small", {}, many(total.runs, "run"))],
    ["Predictions", usd(total.inference_usd), el("small", {}, many(total.calls, "call"))],
    ["Saved by spot", usd(total.saved_usd)],
    total.unknown_steps
      ? ["Not known", count(total.unknown_steps), el("small", {}, "steps without a price")]
      : null,
  ]);
}

function listOf(by, linkOf) {
  const tenantOf = (name) => ({ tenant: name, "data-set": name.split("/")[0] })[by()];
  const name = (row) =>
    row.isTotal || !tenantOf(row.name)
      ? row.name
      : el("a", { href: linkOf(tenantOf(row.name), "costs") }, row.name);
  return table({
    key: (row) => `${by()} ${row.name}${row.isTotal ? " (all)" : ""}`,
    empty: "There are no costs in this month.",
    columns: [
      { title: "Name", head: true, cell: name },
      { title: "Runs", class: "number", cell: (row) => count(row.runs) },
      { title: "Succeeded", class: "number", cell: (row) => count(row.succeeded) },
      { title: "Failed", class: "number", cell: (row) => count(row.failed) },
      { title: "Stopped", class: "number", cell: (row) => count(row.stopped) },
      { title: "Cost of runs", class: "number", cell: (row) => usd(row.usd) },
      { title: "Predictions", class: "number", cell: (row) => count(row.calls) },
      { title: "Cost of predictions", class: "number", cell: (row) => usd(row.inference_usd) },
    ],
  });
}
