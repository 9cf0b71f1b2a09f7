// The models of a tenant, newest first.

import { at, get } from "../api.js";
import { el } from "../dom.js";
import { time } from "../format.js";
import { table } from "../table.js";

export const title = () => "Models";

const KINDS = { approved: "good", rejected: "bad", pending: "warn" };

/** Return what a version's approval and its role are, as badges. */
export function standing(model) {
  return [
    el("span", { class: `badge ${KINDS[model.status] || ""}` }, model.status),
    ...(model.role ? [" ", el("span", { class: "badge busy" }, model.role)] : []),
  ];
}

export function show(view, context) {
  const { tenant, link } = context;
  const more = el("button", { type: "button", hidden: true, onclick: showMore }, "Show more");
  const list = table({
    caption: `Models of ${tenant}, newest first`,
    key: (row) => String(row.version),
    empty: "There are no models yet: each training that succeeds registers one.",
    columns: [
      {
        title: "Version",
        head: true,
        cell: (row) => el("a", { href: link("models", row.version) }, `version ${row.version}`),
      },
      { title: "Data set", cell: (row) => row.data_set },
      { title: "Approval", cell: standing },
      {
        title: "Quality",
        class: "number",
        cell: (row) => (row.quality === null ? "–" : `${row.quality_metric} ${row.quality.toFixed(3)}`),
      },
      {
        title: "Rows",
        class: "number",
        cell: (row) => (row.rows === null ? "–" : row.rows.toLocaleString("en-US")),
      },
      { title: "Registered", cell: (row) => time(row.created_at) },
    ],
  });
  view.append(el("div", { class: "panel tall" }, list.element, el("div", { class: "more" }, more)));
  let later = [],
    next = null;

  async function showMore() {
    const page = await get(at`tenants/${tenant}/models`, { cursor: next });
    later = [...later, ...page.items];
    next = page.next;
    await context.reload();
  }

  return async ({ isAsked }) => {
    const page = await get(at`tenants/${tenant}/models`);
    if (!later.length) next = page.next;
    const first = new Set(page.items.map((row) => row.version));
    list.update([...page.items, ...later.filter((row) => !first.has(row.version))], { isAsked });
    more.hidden = next === null;
  };
}
