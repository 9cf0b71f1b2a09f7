// Tables whose rows keep their places while they are read: a row is known by its key.

import { el } from "./dom.js";

/**
 * Return a table. `columns`: title, cell(row), and perhaps class and head (whether it names the row).
 * update(rows) shows these rows: values change in place. While the pointer or the focus is in the table, no row
 * moves: rows that are gone are dimmed, and others wait until it has left; unless the user has asked for them.
 */
export function table({ caption, columns, key, empty, picks }) {
  const body = el("tbody", { role: "rowgroup" });
  const picked = new Set();
  const all = el("input", { type: "checkbox", "aria-label": "Select all that can be", onchange: () => pickAll() });
  const heads = columns.map((column) =>
    el("th", { scope: "col", role: "columnheader", class: column.class }, column.title),
  );
  const head = el(
    "thead",
    { role: "rowgroup" },
    el(
      "tr",
      { role: "row" },
      picks ? el("th", { class: "pick", scope: "col", role: "columnheader" }, all) : null,
      heads,
    ),
  );
  const element = el(
    "table",
    { class: "cards", role: "table" },
    caption ? el("caption", {}, caption) : null,
    head,
    body,
  );
  const none = el("p", { class: "quiet", hidden: true }, empty || "There is nothing here.");
  const shown = new Map();
  let rows = [];

  function pickCell(row) {
    const box = el("input", { type: "checkbox", "aria-label": `Select ${picks.name(row)}` });
    box.addEventListener("change", () => {
      picked[box.checked ? "add" : "delete"](key(row));
      picks.changed(selected());
    });
    return el("td", { class: "pick", role: "cell" }, picks.can(row) ? box : null);
  }

  function cell(column, row) {
    const properties = { class: column.class, data: { title: column.title } };
    const kind = column.head ? ["th", { role: "rowheader", scope: "row" }] : ["td", { role: "cell" }];
    return el(kind[0], { ...properties, ...kind[1] }, el("div", {}, column.cell(row)));
  }

  function cells(row) {
    return [...(picks ? [pickCell(row)] : []), ...columns.map((column) => cell(column, row))];
  }

  function placed(row) {
    const id = key(row);
    const next = cells(row);
    const line = shown.get(id) || el("tr", { role: "row" });
    if (!shown.has(id)) line.append(...next);
    else
      next.forEach(
        (each, index) => each.isEqualNode(line.children[index]) || line.children[index].replaceWith(each),
      );
    const box = line.querySelector(".pick input");
    if (box) box.checked = picked.has(id);
    line.classList.toggle("total", Boolean(row.isTotal));
    line.classList.remove("gone");
    shown.set(id, line);
    return line;
  }

  function arrange() {
    const ids = new Set(rows.map(key));
    for (const [id, line] of shown)
      if (!ids.has(id)) {
        line.remove();
        shown.delete(id);
      }
    rows.map(placed).forEach((line, index) => {
      if (body.children[index] !== line) body.insertBefore(line, body.children[index] || null);
    });
  }

  /** With `isAsked`, by the user, rows move at once. */
  function update(next, { isAsked = false } = {}) {
    rows = next;
    const ids = new Set(rows.map(key));
    for (const id of picked)
      if (!ids.has(id) || (picks && !picks.can(rows.find((row) => key(row) === id)))) picked.delete(id);
    if (picks) picks.changed(selected());
    if (picks) all.disabled = !rows.some(picks.can);
    none.hidden = rows.length > 0;
    element.hidden = rows.length === 0;
    if (shown.size && !isAsked && body.matches(":hover, :focus-within")) {
      for (const row of rows) if (shown.has(key(row))) placed(row);
      for (const [id, line] of shown) line.classList.toggle("gone", !ids.has(id));
    } else arrange();
  }

  function pickAll() {
    picked.clear();
    if (all.checked) for (const row of rows.filter(picks.can)) picked.add(key(row));
    arrange();
    picks.changed(selected());
  }

  function selected() {
    return rows.filter((row) => picked.has(key(row)));
  }

  for (const event of ["pointerleave", "focusout"]) {
    body.addEventListener(event, () =>
      setTimeout(() => {
        if (!body.matches(":hover, :focus-within")) arrange();
      }, 0),
    );
  }
  return {
    element: el("div", {}, element, none),
    update,
    selected,
    clear: () => {
      picked.clear();
      all.checked = false;
      arrange();
    },
  };
}
