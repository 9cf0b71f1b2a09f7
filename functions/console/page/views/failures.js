// What failed on a day, grouped by reasons that differ in numbers and names alone.

import { get } from "../api.js";
import { banner, el, field } from "../dom.js";
import { endedOn } from "../ended.js";
import { count, time, today } from "../format.js";
import { table } from "../table.js";

const STATES = ["FAILED", "REJECTED"];
const SHOWN_MAX = 5;
const SECONDS = 60;

export function show(view, context) {
  const { query, setQuery, linkOf } = context;
  const day = el("input", { type: "date", value: query.day || today(), required: true });
  const list = listOf(linkOf);
  const partial = el("div");
  let ended = endedOn(day.value, STATES);
  day.addEventListener("change", () => {
    ended = endedOn(day.value || today(), STATES);
    setQuery({ day: day.value === today() ? "" : day.value });
    context.reload();
  });
  view.append(
    el("div", { class: "fields" }, field("Day (UTC)", day)),
    partial,
    el("div", { class: "panel" }, list.element),
  );

  async function load({ isAsked }) {
    const { tiers } = await get("v1/service");
    const { requests, isPartial } = await ended(tiers.map((tier) => tier.name));
    list.update(grouped(requests), { isAsked });
    partial.replaceChildren(
      ...(isPartial ? [banner("", "Only the newest 300 per tier and state are shown.")] : []),
    );
  }
  return { load, seconds: SECONDS };
}

function listOf(linkOf) {
  const newest = (row) =>
    row.requests
      .slice(0, SHOWN_MAX)
      .map((each) =>
        el(
          "a",
          { class: "spaced", href: linkOf(each.tenant_id, "requests", each.request_id) },
          each.request_id.slice(0, 8),
        ),
      );
  return table({
    caption: "Requests that failed or were refused, by reason",
    key: (row) => row.fingerprint,
    empty: "Nothing failed on this day.",
    columns: [
      { title: "Requests", class: "number", cell: (row) => count(row.requests.length) },
      { title: "Reason of the last one", head: true, class: "text", cell: (row) => reasonOf(row.requests[0]) },
      { title: "Tenants", cell: (row) => named(row.requests.map((each) => each.tenant_id)) },
      { title: "Last", cell: (row) => time(row.requests[0].finished_at) },
      { title: "Newest requests", cell: newest },
    ],
  });
}

const reasonOf = ({ receipt }) => receipt.reason || receipt.message;

function grouped(requests) {
  const groups = new Map();
  for (const request of requests) {
    const fingerprint = alike(reasonOf(request));
    groups.set(fingerprint, [...(groups.get(fingerprint) || []), request]);
  }
  return [...groups]
    .map(([fingerprint, each]) => ({ fingerprint, requests: each }))
    .sort((a, b) => b.requests.length - a.requests.length);
}

/** Return what reasons have in common that differ in numbers, ids, files and quoted names alone. */
function alike(reason) {
  return reason
    .replace(/'[^']*'/g, "''")
    .replace(/[0-9a-f]{8,}/gi, "")
    .replace(/[0-9]+/g, "0")
    .replace(/^\S+\.(csv|json|jsonl|parquet|gz)\b/i, "");
}

function named(ids) {
  const unique = [...new Set(ids)];
  const more = unique.length - SHOWN_MAX;
  return unique.slice(0, SHOWN_MAX).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
