// The requests that are next in each tier: why each waits, what would unblock it, and its expected start.

import { get } from "../api.js";
import { el, field, select } from "../dom.js";
import { duration, expectedStart, time, usd } from "../format.js";
import { table } from "../table.js";

const LIMIT = 50;

export function show(view, context) {
  const { query, setQuery, linkOf } = context;
  const tier = select([["", "All"], ...(query.tier ? [[query.tier, query.tier]] : [])], query.tier || "");
  const tenant = el("input", { value: query.tenant || "", size: "16", autocomplete: "off", spellcheck: "false" });
  const list = listOf(linkOf);
  let hasTiers = false;
  for (const control of [tier, tenant]) {
    control.addEventListener("change", () => {
      setQuery({ tier: tier.value, tenant: tenant.value.trim() });
      context.reload();
    });
  }
  view.append(
    el("div", { class: "fields" }, field("Tier", tier), field("Tenant", tenant, "Its full id")),
    el("div", { class: "panel" }, list.element),
  );

  async function nameTiers() {
    const service = await get("v1/service");
    const chosen = tier.value;
    tier.replaceChildren(
      ...["", ...service.tiers.map((each) => each.name)].map((name) =>
        el("option", { value: name }, name || "All"),
      ),
    );
    tier.value = chosen;
    hasTiers = true;
  }

  async function load({ isAsked }) {
    if (!hasTiers) await nameTiers();
    const { items } = await get("v1/service/queue", { limit: LIMIT });
    const named = tenant.value.trim();
    const rows = items.filter(
      (row) => (!tier.value || row.tier === tier.value) && (!named || row.tenant_id === named),
    );
    const empty = named
      ? `No request of ${named} is among the next ${LIMIT} of a tier. Its own page shows all that it has waiting.`
      : null;
    list.update(rows, { isAsked, empty });
  }
  return { load };
}

/** Return what nine of ten such runs take and cost at most. */
function estimate({ seconds_p90: seconds, usd_p90: cost }) {
  if (seconds === null) return "not known";
  return [`≤ ${duration(seconds)}`, cost === null ? null : el("div", {}, el("small", {}, `≤ ${usd(cost)}`))];
}

const deadline = ({ start_by: start }) =>
  start ? el("div", {}, el("small", {}, "must start by ", time(start))) : null;

function listOf(linkOf) {
  return table({
    caption: `The next ${LIMIT} of each tier, in the order of their expected starts`,
    key: (row) => row.request_id,
    empty: "Nothing waits that could start. The overview counts what is paused or held back.",
    columns: [
      { title: "Place", cell: (row) => `${row.tier} ${row.position}` },
      {
        title: "Request",
        head: true,
        cell: (row) =>
          el("a", { href: linkOf(row.tenant_id, "requests", row.request_id) }, row.request_id.slice(0, 8)),
      },
      { title: "Tenant", cell: (row) => el("a", { href: linkOf(row.tenant_id, "requests") }, row.tenant_id) },
      { title: "Data set", cell: (row) => row.data_set },
      { title: "Arrived", cell: (row) => time(row.arrived_at) },
      { title: "Why it waits", class: "text", cell: (row) => row.reason },
      { title: "What would unblock it", class: "text", cell: (row) => row.would_unblock },
      { title: "Estimate", cell: estimate },
      { title: "Expected start", cell: (row) => [expectedStart(row.latest_start), deadline(row)] },
    ],
  });
}
