// The tenants: found by id, or listed in pages.

import { ApiError, at, get } from "../api.js";
import { act, el, field, panel } from "../dom.js";
import { count } from "../format.js";
import { pages, table } from "../table.js";

const PAGE = 100;
const ID = "[a-z0-9\\-]{1,24}";

export function show(view, { linkOf }) {
  const name = el("input", {
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    required: true,
    pattern: ID,
    size: "20",
  });
  const status = el("div", { role: "status" });
  const open = el("button", {}, "Open");
  const find = el(
    "form",
    { class: "fields" },
    field("Tenant", name, "Its full id"),
    el("div", { class: "field" }, open),
  );
  const more = el("button", { type: "button", hidden: true }, "Show more");
  const total = el("p", { class: "quiet" });
  const list = listOf(linkOf);
  // In no order, as the API lists them: to sort some of them would look as if they were all.
  const book = pages({
    read: (cursor) => get("v1/service/tenants", { limit: PAGE, cursor }),
    key: (row) => row.tenant_id,
  });

  find.addEventListener("submit", (event) => {
    event.preventDefault();
    act(open, status, () => go(name.value.trim()));
  });
  more.addEventListener("click", () =>
    act(more, status, async () => {
      await book.more();
      shown(book.items());
    }),
  );

  async function go(id) {
    try {
      await get(at`tenants/${id}`);
    } catch (error) {
      throw error.status === 404 ? new ApiError(404, `There is no tenant ${id}.`) : error;
    }
    location.hash = linkOf(id, "requests");
  }

  function shown(items) {
    list.update(items, { isAsked: true });
    more.hidden = !book.hasMore();
    total.textContent = `${count(items.length)} shown${book.hasMore() ? ", there are more" : ""}`;
  }

  view.append(find, status, panel("All tenants", total, list.element, el("div", { class: "more" }, more)));
  return { load: async () => shown(await book.load()), seconds: 0 };
}

function listOf(linkOf) {
  const page = (row, name, text) =>
    el("a", { href: linkOf(row.tenant_id, name), "aria-label": `${text} of ${row.tenant_id}` }, text);
  return table({
    key: (row) => row.tenant_id,
    empty: "There are no tenants yet.",
    columns: [
      {
        title: "Tenant",
        head: true,
        cell: (row) => el("a", { href: linkOf(row.tenant_id, "requests") }, row.tenant_id),
      },
      {
        title: "State",
        cell: (row) =>
          el("span", { class: `badge ${row.state === "ACTIVE" ? "good" : "warn"}` }, row.state.toLowerCase()),
      },
      { title: "Tier", cell: (row) => row.tier },
      { title: "Storage", cell: (row) => (row.storage === "pool" ? "shared bucket" : "own bucket") },
      { title: "Costs", cell: (row) => page(row, "costs", "Costs") },
      { title: "Models", cell: (row) => page(row, "models", "Models") },
    ],
  });
}
