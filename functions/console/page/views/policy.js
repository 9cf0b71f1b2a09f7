// The policy: what is in force, who changed it, and what another one would change.

import { at, get, post } from "../api.js";
import { el, field, fill, panel } from "../dom.js";
import { many, time } from "../format.js";
import { table } from "../table.js";

export const title = () => "Policy";

export function show(view) {
  const text = el("textarea", { class: "code", rows: "18", spellcheck: "false", wrap: "off" });
  const compare = el(
    "button",
    { type: "button", class: "main", disabled: true, onclick: whatIf },
    "Compare with the one in force",
  );
  const result = el("div", { role: "status" });
  const inForce = el("p", { class: "quiet" }, "Loading…");
  const list = table({
    key: (row) => String(row.version),
    columns: [
      { title: "Version", head: true, cell: (row) => `version ${row.version}` },
      { title: "Applied", cell: (row) => (row.applied_at ? time(row.applied_at) : "deployed") },
      { title: "By", class: "text", cell: (row) => row.by || "–" },
      { title: "Note", class: "text", cell: (row) => row.note || "–" },
      {
        title: "Text",
        cell: (row) =>
          el(
            "button",
            { type: "button", data: { version: String(row.version) } },
            `Edit a copy of version ${row.version}`,
          ),
      },
    ],
  });
  let policy = null;

  list.element.addEventListener("click", async (event) => {
    const { version } = event.target.dataset || {};
    if (!version) return;
    text.value = (await get(at`service/policies/${version}`)).text;
    text.focus();
    compare.disabled = false;
  });
  text.addEventListener("input", () => {
    compare.disabled = false;
  });

  async function whatIf() {
    compare.disabled = true;
    result.replaceChildren(el("p", { class: "quiet" }, "Comparing…"));
    try {
      result.replaceChildren(...effects(await post("v1/service/policy/what-if", { text: text.value })));
      result.querySelector("h2").scrollIntoView({ block: "nearest" });
    } catch (error) {
      result.replaceChildren(el("p", { class: "banner bad" }, error.message));
    } finally {
      compare.disabled = false;
    }
  }

  view.append(
    panel(
      "What would another policy change?",
      el("p", {}, "Change the text, and compare it: nothing is put in force here. ", inForce),
      field("Policy (YAML)", text),
      el("div", { class: "buttons more" }, compare),
    ),
    result,
    panel("Versions", el("div", { class: "low" }, list.element)),
  );

  return async ({ isAsked }) => {
    const [current, { items }] = await Promise.all([get("v1/service/policy"), get("v1/service/policies")]);
    list.update(items, { isAsked });
    if (policy === null) {
      text.value = current.text;
      compare.disabled = false;
    }
    const isOvertaken = policy !== null && policy.version !== current.version;
    fill(
      inForce,
      isOvertaken
        ? el("strong", {}, `Version ${current.version} has been put in force since you opened this page. `)
        : null,
      `In force: version ${current.version}. To apply a file: `,
      el("code", {}, "trainyard policy apply FILE"),
    );
    policy = policy ?? current;
  };
}

function effects({ from_version: from, diff, slots, other_slots: others, tiers, items }) {
  if (!diff.length)
    return [panel("What would change", el("p", {}, `Nothing: it is the text of version ${from}.`))];
  const changed = items.filter((item) => JSON.stringify(item.now) !== JSON.stringify(item.other));
  return [
    panel(
      "What would change",
      limits(slots, others, tiers),
      el(
        "p",
        { class: "more" },
        items.length
          ? `Of ${many(items.length, "waiting request")}, ${changed.length || "none"} would start or wait differently.`
          : "Nothing waits now, so that no request would be told something else.",
      ),
      items.length ? requests(items) : null,
    ),
    panel(
      "Lines that differ",
      el(
        "pre",
        { class: "diff", tabindex: "0", role: "region", "aria-label": "Lines that differ" },
        diff.map((line) =>
          el("span", { class: line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : null }, line),
        ),
      ),
    ),
  ];
}

function limits(slots, others, tiers) {
  const list = table({
    caption: "Slots",
    key: (row) => row.name,
    columns: [
      { title: "Slots of", head: true, cell: (row) => row.name },
      { title: "In force", class: "number", cell: (row) => row.quota ?? "no such tier" },
      { title: "Then", class: "number", cell: (row) => row.other_quota ?? "no such tier" },
    ].map((column) => ({ ...column, cell: (row) => String(column.cell(row)) })),
  });
  list.update([...tiers, { name: "all tiers together", quota: slots, other_quota: others, isTotal: true }]);
  return list.element;
}

function requests(items) {
  const list = table({
    caption: "The requests that are next, under the policy in force and under the other one",
    key: (row) => row.request_id,
    columns: [
      {
        title: "Request",
        head: true,
        cell: (row) =>
          el(
            "a",
            { href: `#/t/${encodeURIComponent(row.tenant_id)}/requests/${row.request_id}` },
            `${row.tenant_id}/${row.data_set}`,
          ),
      },
      { title: "Tier", cell: (row) => row.tier },
      { title: "Start now expected", cell: (row) => start(row.now) },
      { title: "Start then expected", cell: (row) => start(row.other) },
      { title: "Why it waits now", cell: (row) => row.now?.reason ?? "not among the next ones" },
      { title: "Why it would wait", cell: (row) => row.other?.reason ?? "not among the next ones" },
    ],
  });
  list.update(items);
  return list.element;
}

const start = (prospect) =>
  prospect === null ? "–" : prospect.latest_start ? time(prospect.latest_start) : "not foreseeable";
