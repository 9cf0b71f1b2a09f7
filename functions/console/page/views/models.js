// The models of a tenant, newest first.

import { at, get } from "../api.js";
import { act, el } from "../dom.js";
import { time } from "../format.js";
import { pages, table } from "../table.js";

const KINDS = { approved: "good", rejected: "bad", pending: "warn" };

/** Return what a version's approval and its role are, as badges. */
export function standing(model) {
  const share = model.percent ? `, ${model.percent} % of calls` : "";
  const role = model.role ? [" ", el("span", { class: "badge busy" }, `${model.role}${share}`)] : [];
  return [el("span", { class: `badge ${KINDS[model.status] || ""}` }, model.status), ...role];
}

export function show(view, { tenant, link }) {
  const more = el("button", { type: "button", hidden: true }, "Show more");
  const status = el("div", { role: "status" });
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
  const book = pages({
    read: (cursor) => get(at`tenants/${tenant}/models`, { cursor }),
    key: (row) => row.version,
  });
  const shown = (items, isAsked) => {
    list.update(items, { isAsked });
    more.hidden = !book.hasMore();
  };
  more.addEventListener("click", () =>
    act(more, status, async () => {
      await book.more();
      shown(book.items(), true);
    }),
  );
  view.append(el("div", { class: "panel" }, list.element, el("div", { class: "more" }, more), status));
  return { load: async ({ isAsked }) => shown(await book.load(), isAsked) };
}
