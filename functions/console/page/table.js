// Tables whose rows keep their places while they are read, and lists that the API gives page by page.
// A row is known by its key.

import { el } from "./dom.js";

const PAGES_EMPTY_MAX = 5;
const PAGES_RELOADED_MAX = 4;

/**
 * Return a table. `columns`: title, cell(row), and perhaps class and head (whether it names the row).
 * update(rows) shows these rows: values change in place. While the pointer or the focus is in the table, no row
 * moves: rows that are gone are marked, and others wait until it has left; unless the user has asked for them.
 * `picks` lets rows be selected: can(row), name(row), all (what the box for all is called) and changed(rows).
 */
export function table({ caption, columns, key, empty = "There is nothing here.", picks }) {
  const body = el("tbody", { role: "rowgroup" });
  const pickHead = picks
    ? el("th", { class: "pick", scope: "col", role: "columnheader" }, el("span", { class: "unseen" }, "Selected"))
    : null;
  const heads = columns.map((column) =>
    el("th", { scope: "col", role: "columnheader", class: column.class }, column.title),
  );
  const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, pickHead, heads));
  const element = el(
    "table",
    { class: "cards", role: "table" },
    caption ? el("caption", {}, caption) : null,
    head,
    body,
  );
  const none = el("p", { class: "quiet", hidden: true }, empty);
  const selection = picks ? selectionOf(picks, key, () => rows, arrange) : null;
  const shown = new Map();
  let rows = [];

  function cell(column, row) {
    const properties = { class: column.class, data: { title: column.title } };
    const [tag, role] = column.head ? ["th", { role: "rowheader", scope: "row" }] : ["td", { role: "cell" }];
    return el(tag, { ...properties, ...role }, el("div", {}, column.cell(row)));
  }

  function placed(row) {
    const id = key(row);
    const next = [...(picks ? [selection.cell(row)] : []), ...columns.map((column) => cell(column, row))];
    const line = shown.get(id) || el("tr", { role: "row" });
    if (!shown.has(id)) line.append(...next);
    else
      next.forEach(
        (each, index) => each.isEqualNode(line.children[index]) || line.children[index].replaceWith(each),
      );
    selection?.tick(id, line);
    line.classList.toggle("total", Boolean(row.isTotal));
    line.classList.remove("gone");
    shown.set(id, line);
    return line;
  }

  function drop(id, line) {
    line.remove();
    shown.delete(id);
  }

  function arrange() {
    const ids = new Set(rows.map(key));
    for (const [id, line] of shown) if (!ids.has(id)) drop(id, line);
    rows.map(placed).forEach((line, index) => {
      if (body.children[index] !== line) body.insertBefore(line, body.children[index] || null);
    });
  }

  /** Show these rows; with `isAsked`, by the user, they move at once. `empty` says why there are none. */
  function update(next, { isAsked = false, empty: words = null } = {}) {
    rows = next;
    selection?.forget();
    none.hidden = rows.length > 0;
    none.textContent = words || empty;
    element.hidden = rows.length === 0;
    if (!shown.size || isAsked || !isInUse(body)) return arrange();
    const ids = new Set(rows.map(key));
    for (const row of rows) if (shown.has(key(row))) placed(row);
    for (const [id, line] of shown) line.classList.toggle("gone", !ids.has(id));
  }

  for (const event of ["pointerleave", "focusout"]) {
    body.addEventListener(event, () => setTimeout(() => isInUse(body) || arrange(), 0));
  }
  return {
    element: el("div", {}, selection?.all, element, none),
    update,
    selected: () => selection.rows(),
    pick: (ids) => selection.pick(ids),
  };
}

// Where fingers point, what was touched last counts as pointed at.
const isInUse = (body) =>
  body.matches(matchMedia("(hover: hover)").matches ? ":hover, :focus-within" : ":focus-within");

/** Return what lets rows be selected: a box in each, and one for all of them. */
function selectionOf(picks, key, rows, arrange) {
  const picked = new Set();
  const box = el("input", { type: "checkbox" });
  const all = el("label", { class: "inline" }, box, picks.all);
  const possible = () => rows().filter(picks.can);
  const selected = () => possible().filter((row) => picked.has(key(row)));

  function changed() {
    const [some, most] = [selected().length, possible().length];
    box.checked = some > 0 && some === most;
    box.indeterminate = some > 0 && some < most;
    all.hidden = most === 0;
    picks.changed(selected());
  }

  function pick(ids) {
    picked.clear();
    for (const id of ids) picked.add(id);
    arrange();
    changed();
  }

  function cell(row) {
    const own = el("input", { type: "checkbox", "aria-label": `Select ${picks.name(row)}` });
    own.addEventListener("change", () => {
      picked[own.checked ? "add" : "delete"](key(row));
      changed();
    });
    return el("td", { class: "pick", role: "cell" }, picks.can(row) ? own : null);
  }

  function tick(id, line) {
    const own = line.querySelector(".pick input");
    if (own) own.checked = picked.has(id);
  }

  function forget() {
    const ids = new Set(possible().map(key));
    for (const id of picked) if (!ids.has(id)) picked.delete(id);
    changed();
  }

  box.addEventListener("change", () => pick(box.checked ? possible().map(key) : []));
  return { all, cell, tick, forget, pick, rows: selected };
}

/**
 * Return { load, more, reset, items, hasMore }. `read(cursor)` returns a page { items, next }; items are known by
 * `key`. load() returns all items so far: the newest pages are read again, those beyond are as they were.
 */
export function pages({ read, key }) {
  let shown = 1,
    generation = 0,
    kept = [],
    beyond = [],
    next = null;

  /** Filtered pages may be empty, and yet others follow. */
  async function page(cursor) {
    let answer = await read(cursor);
    for (let tries = 1; !answer.items.length && answer.next && tries < PAGES_EMPTY_MAX; tries += 1)
      answer = await read(answer.next);
    return answer;
  }

  async function load() {
    const mine = generation;
    const items = [];
    let cursor = null;
    for (let number = 0; number < Math.min(shown, PAGES_RELOADED_MAX); number += 1) {
      const answer = await page(cursor);
      items.push(...answer.items);
      cursor = answer.next;
      if (cursor === null) break;
    }
    if (mine !== generation) return kept;
    const fresh = new Set(items.map(key));
    beyond = beyond.filter((item) => !fresh.has(key(item)));
    if (shown <= PAGES_RELOADED_MAX) next = cursor;
    kept = [...items, ...beyond];
    return kept;
  }

  async function more() {
    if (next === null) return;
    const mine = generation;
    const answer = await page(next);
    if (mine !== generation) return;
    const present = new Set(kept.map(key));
    const added = answer.items.filter((item) => !present.has(key(item)));
    kept = [...kept, ...added];
    next = answer.next;
    shown += 1;
    if (shown > PAGES_RELOADED_MAX) beyond = [...beyond, ...added];
  }

  function reset() {
    generation += 1;
    [shown, kept, beyond, next] = [1, [], [], null];
  }

  return { load, more, reset, items: () => kept, hasMore: () => next !== null };
}
