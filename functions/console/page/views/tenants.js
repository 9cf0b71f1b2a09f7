// The tenants.

import { at, get } from "../api.js";
import { el, field, panel } from "../dom.js";
import { table } from "../table.js";

export const title = () => "Tenants";

const PAGE = 50;

export function show(view, context) {
  const name = el("input", {
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    pattern: "[a-z0-9\\-]{1,40}",
    size: "20",
  });
  const problem = el("div", { role: "status" });
  const find = el(
    "form",
    { class: "fields" },
    field("Tenant", name, "Its whole id"),
    el("div", { class: "field" }, el("button", {}, "Open")),
  );
  const more = el("button", { type: "button", hidden: true, onclick: showMore }, "Show more");
  const list = table({
    key: (row) => row.tenant_id,
    empty: "There are no tenants yet.",
    columns: [
      {
        title: "Tenant",
        head: true,
        cell: (row) => el("a", { href: `#/t/${encodeURIComponent(row.tenant_id)}/requests` }, row.tenant_id),
      },
      {
        title: "State",
        cell: (row) =>
          el("span", { class: `badge ${row.state === "ACTIVE" ? "good" : "warn"}` }, row.state.toLowerCase()),
      },
      { title: "Tier", cell: (row) => row.tier },
      { title: "Storage", cell: (row) => row.storage },
      {
        title: "Costs",
        cell: (row) =>
          el(
            "a",
            { href: `#/t/${encodeURIComponent(row.tenant_id)}/costs`, "aria-label": `Costs of ${row.tenant_id}` },
            "costs",
          ),
      },
      {
        title: "Models",
        cell: (row) =>
          el(
            "a",
            {
              href: `#/t/${encodeURIComponent(row.tenant_id)}/models`,
              "aria-label": `Models of ${row.tenant_id}`,
            },
            "models",
          ),
      },
    ],
  });
  let tenants = [],
    cursor = null,
    pages = 1;

  find.addEventListener("submit", async (event) => {
    event.preventDefault();
    const id = name.value.trim();
    try {
      await get(at`tenants/${id}`);
      location.hash = `#/t/${encodeURIComponent(id)}/requests`;
    } catch (error) {
      problem.replaceChildren(
        el("p", { class: "banner bad" }, error.status === 404 ? `There is no tenant ${id}.` : error.message),
      );
    }
  });

  /** A page may have fewer tenants than asked for, or none, and yet a next one. */
  async function load({ isAsked }) {
    const found = [];
    cursor = null;
    for (let page = 0; page < pages; page += 1) {
      const answer = await get("v1/service/tenants", { limit: PAGE, cursor });
      found.push(...answer.items);
      cursor = answer.next;
      if (cursor === null) break;
    }
    tenants = found;
    list.update(
      [...tenants].sort((a, b) => (a.tenant_id < b.tenant_id ? -1 : 1)),
      { isAsked },
    );
    more.hidden = cursor === null;
  }

  async function showMore() {
    pages += 2;
    await context.reload();
  }

  view.append(
    find,
    problem,
    panel("All tenants", el("div", { class: "tall" }, list.element), el("div", { class: "more" }, more)),
  );
  return load;
}
