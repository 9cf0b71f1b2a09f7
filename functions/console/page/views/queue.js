// The requests that are next in each tier: why each waits, what would let it go, and its expected start.

import { get } from "../api.js";
import { el, field, select } from "../dom.js";
import { time } from "../format.js";
import { table } from "../table.js";

export const title = () => "Queue";

const LIMIT = 50;

export function show(view, context) {
  const { query, setQuery } = context;
  const tier = select([["", "All"]], "");
  const tenant = el("input", { value: query.tenant || "", size: "16", autocomplete: "off", spellcheck: "false" });
  const list = table({
    caption: `The next ${LIMIT} of each tier, in the order of their expected starts`,
    key: (row) => row.request_id,
    empty: "Nothing waits that could start. The overview counts what is paused, and what cannot start.",
    columns: [
      { title: "Place", class: "number", cell: (row) => String(row.position) },
      { title: "Tier", cell: (row) => row.tier },
      {
        title: "Request",
        head: true,
        cell: (row) =>
          el(
            "a",
            { href: `#/t/${encodeURIComponent(row.tenant_id)}/requests/${row.request_id}` },
            row.request_id.slice(0, 8),
          ),
      },
      {
        title: "Tenant",
        cell: (row) => el("a", { href: `#/t/${encodeURIComponent(row.tenant_id)}/requests` }, row.tenant_id),
      },
      { title: "Data set", cell: (row) => row.data_set },
      { title: "Arrived", cell: (row) => time(row.arrived_at) },
      { title: "Why it waits", class: "text", cell: (row) => row.reason },
      { title: "What would let it go", class: "text", cell: (row) => row.would_unblock },
      {
        title: "Expected start",
        cell: (row) =>
          row.latest_start ? time(row.latest_start) : el("span", { class: "quiet" }, "not foreseeable"),
      },
    ],
  });
  for (const control of [tier, tenant]) {
    control.addEventListener("change", () => {
      setQuery({ tier: tier.value, tenant: tenant.value.trim() });
      context.reload();
    });
  }
  view.append(
    el("div", { class: "fields" }, field("Tier", tier), field("Tenant", tenant)),
    el("div", { class: "panel tall" }, list.element),
  );
  let isFirst = true;

  return async ({ isAsked }) => {
    const [{ items }, service] = await Promise.all([
      get("v1/service/queue", { limit: LIMIT }),
      isFirst ? get("v1/service") : null,
    ]);
    if (service) {
      tier.replaceChildren(
        ...[["", "All"], ...service.tiers.map((each) => [each.name, each.name])].map(([value, text]) =>
          el("option", { value }, text),
        ),
      );
      tier.value = query.tier || "";
      isFirst = false;
    }
    const named = tenant.value.trim();
    list.update(
      items.filter((row) => (!tier.value || row.tier === tier.value) && (!named || row.tenant_id === named)),
      { isAsked },
    );
  };
}
