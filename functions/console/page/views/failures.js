// What failed on a day, grouped by reasons that differ in numbers and names alone.

import { get } from "../api.js";
import { el, field } from "../dom.js";
import { ended } from "../ended.js";
import { count, time, today } from "../format.js";
import { table } from "../table.js";

export const title = () => "Failures";

const SHOWN_MAX = 5;

export function show(view, context) {
  const { query, setQuery } = context;
  const day = el("input", { type: "date", value: query.day || today(), max: today(), required: true });
  const list = table({
    caption: "Requests that failed or were refused, by reason",
    key: (row) => row.reason,
    empty: "Nothing failed on this day.",
    columns: [
      { title: "Requests", class: "number", cell: (row) => count(row.requests.length) },
      {
        title: "Reason",
        class: "text",
        cell: (row) => row.requests[0].receipt.reason || row.requests[0].receipt.message,
      },
      { title: "Tenants", cell: (row) => named(row.requests.map((each) => each.tenant_id)) },
      { title: "Last", cell: (row) => time(row.requests[0].finished_at) },
      {
        title: "Newest of them",
        cell: (row) =>
          row.requests
            .slice(0, SHOWN_MAX)
            .map((each) => [
              el(
                "a",
                { href: `#/t/${encodeURIComponent(each.tenant_id)}/requests/${each.request_id}` },
                each.request_id.slice(0, 8),
              ),
              " ",
            ]),
      },
    ],
  });
  const partial = el("div");
  day.addEventListener("change", () => {
    setQuery({ day: day.value });
    context.reload();
  });
  view.append(
    el("div", { class: "fields" }, field("Day (UTC)", day)),
    partial,
    el("div", { class: "panel tall" }, list.element),
  );

  return async ({ isAsked }) => {
    const service = await get("v1/service");
    const { requests, isPartial } = await ended(
      service.tiers.map((tier) => tier.name),
      ["FAILED", "REJECTED"],
      day.value || today(),
    );
    const groups = new Map();
    for (const request of requests) {
      const reason = fingerprint(request);
      groups.set(reason, [...(groups.get(reason) || []), request]);
    }
    list.update(
      [...groups]
        .map(([reason, alike]) => ({ reason, requests: alike }))
        .sort((a, b) => b.requests.length - a.requests.length),
      { isAsked },
    );
    partial.replaceChildren(
      ...(isPartial
        ? [
            el(
              "p",
              { class: "banner" },
              "More failed on this day than is shown: of each tier and state, the newest 300.",
            ),
          ]
        : []),
    );
  };
}

/** Return what reasons have in common that differ in numbers, ids and quoted names alone. */
function fingerprint({ receipt }) {
  return (receipt.reason || receipt.message)
    .replace(/'[^']*'/g, "'…'")
    .replace(/[0-9a-f]{8,}/gi, "…")
    .replace(/[0-9]+/g, "0")
    .replace(/^\S+\.(csv|json|jsonl|parquet|gz)\b/i, "…");
}

function named(ids) {
  const unique = [...new Set(ids)];
  const more = unique.length - SHOWN_MAX;
  return unique.slice(0, SHOWN_MAX).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
