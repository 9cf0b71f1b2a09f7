// What all tenants have spent in a month: by tenant, tier, data set or algorithm.

import { get } from "../api.js";
import { el, field, fill, panel, select } from "../dom.js";
import { count, figures, lastMonths, many, usd } from "../format.js";
import { table } from "../table.js";
import { AMOUNTS } from "./costs.js";

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
  const budgets = budgetsOf(linkOf);
  const further = el("p", { class: "quiet" });
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
    panel("Budgets of the current month", budgets.element, further),
  );

  async function load({ isAsked }) {
    const [costs, accounts] = await Promise.all([
      get("v1/service/costs", { month: month.value, by: by.value, limit: LIMIT }),
      get("v1/service/budgets", { limit: LIMIT }),
    ]);
    budgets.update(accounts.items, { isAsked });
    further.textContent = accounts.others ? `${count(accounts.others)} more tenants have a budget.` : "";
    fill(total, spent(costs));
    list.update(costs.items.length ? [...costs.items, { ...costs.total, name: "All", isTotal: true }] : [], {
      isAsked,
    });
    others.textContent = costs.others ? `${count(costs.others)} more, which cost less, are in the total.` : "";
  }
  return { load, seconds: SECONDS };
}

function budgetsOf(linkOf) {
  const whose = ({ whose: text }) => {
    const [kind, name] = text.split(" ");
    return kind === "tenant" ? ["tenant ", el("a", { href: linkOf(name, "costs") }, name)] : text;
  };
  const left = (row) => String(Number(row.limit_usd) - Number(row.spent_usd) - Number(row.reserved_usd));
  return table({
    key: (row) => row.whose,
    empty: "Neither a tenant nor a tier has a budget.",
    columns: [
      { title: "Budget of", head: true, cell: whose },
      { title: "Mode", cell: (row) => row.mode },
      { title: "Limit", class: "number", cell: (row) => usd(row.limit_usd) },
      { title: "Spent", class: "number", cell: (row) => usd(row.spent_usd) },
      { title: "Reserved", class: "number", cell: (row) => usd(row.reserved_usd) },
      { title: "Left", class: "number", cell: (row) => usd(left(row)) },
    ],
  });
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
    columns: [{ title: "Name", head: true, cell: name }, ...AMOUNTS],
  });
}
