// The policy: what is in force, who changed it, and what another one would change.

import { at, get, post } from "../api.js";
import { act, ask, banner, el, field, fill, panel } from "../dom.js";
import { expectedStart, many, time } from "../format.js";
import { table } from "../table.js";

const DRAFT = "trainyard.policy";
const NOTE_LENGTH_MAX = 200;
const SECONDS = 30;

export function show(view, { linkOf, reload, mayChange }) {
  const text = el("textarea", { class: "code", rows: "14", spellcheck: "false", wrap: "off", readonly: true });
  const compare = el("button", { type: "button", class: "main", disabled: true }, "Compare with the one in force");
  const discard = el("button", { type: "button", hidden: true }, "Discard my changes");
  const apply = el("button", { type: "button", class: "danger", hidden: true }, "Apply");
  const status = el("div", { role: "status" });
  const result = el("div");
  const inForce = el("p", { class: "quiet" }, "Loading…");
  const list = listOf();
  let policy = null;
  let compared = null;

  /** Keep what was changed, in this tab, until it is discarded. */
  function changed() {
    const isChanged = policy !== null && text.value !== policy.text;
    if (isChanged) sessionStorage.setItem(DRAFT, text.value);
    else sessionStorage.removeItem(DRAFT);
    discard.hidden = !isChanged;
    apply.hidden = true;
    result.replaceChildren();
  }

  async function replace(next) {
    const lost = [el("p", {}, "The text that you have changed is replaced.")];
    if (
      !discard.hidden &&
      !(await ask({ title: "Discard your changes?", action: "Discard", danger: true, text: lost }))
    )
      return;
    text.value = await next();
    changed();
    text.focus();
  }

  list.element.addEventListener("click", ({ target }) => {
    const { version } = target.dataset ?? {};
    if (version) act(target, status, () => replace(async () => (await get(at`service/policies/${version}`)).text));
  });
  text.addEventListener("input", changed);
  discard.addEventListener("click", () => act(discard, status, () => replace(async () => policy.text)));
  compare.addEventListener("click", () =>
    act(compare, status, async () => {
      const body = { text: text.value };
      const answer = await post("v1/service/policy/what-if", body);
      if (text.value !== body.text) return; // it was changed meanwhile
      compared = {
        ...body,
        after: answer.from_version,
        lines: answer.diff.filter((line) => /^[+-](?![+-]{2})/.test(line)).length,
      };
      status.replaceChildren(banner("good", summary(answer)));
      result.replaceChildren(...effects(answer, linkOf));
      apply.hidden = !mayChange || !answer.diff.length;
      status.scrollIntoView({ block: "start" });
      reload();
    }),
  );
  apply.addEventListener("click", () =>
    act(apply, status, async () => {
      const { lines, ...body } = compared;
      const control = el("input", { maxlength: NOTE_LENGTH_MAX, size: "40" });
      const fields = { note: { label: "Note", control, hint: "Optional; shown in the list of versions" } };
      const words = `It differs from version ${body.after} in ${many(lines, "line")}, and takes effect at once.`;
      const answer = await ask({
        title: "Apply this policy?",
        text: [el("p", {}, words)],
        fields,
        action: "Apply the policy",
        danger: true,
      });
      if (!answer) return;
      const applied = await post("v1/service/policy", { ...body, note: answer.note });
      sessionStorage.removeItem(DRAFT);
      policy = null;
      text.readOnly = true;
      await reload();
      changed();
      status.replaceChildren(banner("good", `Version ${applied.version} is in force.`));
    }),
  );
  const words =
    "Change the text, and see what it would change for the requests that wait. Compare it before you apply it.";
  view.append(
    panel(
      "What would another policy change?",
      el("p", {}, words),
      inForce,
      field("Policy (YAML)", text),
      el("div", { class: "buttons more" }, compare, discard, apply),
    ),
    status,
    result,
    panel("Versions", list.element),
  );

  async function load({ isAsked }) {
    const [current, { items }] = await Promise.all([get("v1/service/policy"), get("v1/service/policies")]);
    list.update(items, { isAsked });
    if (policy === null) {
      policy = current;
      text.value = sessionStorage.getItem(DRAFT) ?? current.text;
      compare.disabled = false;
      text.readOnly = false;
      discard.hidden = text.value === current.text;
    }
    const isOvertaken = policy.version !== current.version;
    const overtaken = `Version ${current.version} has been applied since you opened this page: load it below. `;
    fill(inForce, isOvertaken ? el("strong", {}, overtaken) : null, `In force: version ${current.version}.`);
  }
  return { load, seconds: SECONDS };
}

function listOf() {
  return table({
    key: (row) => String(row.version),
    columns: [
      { title: "Version", head: true, cell: (row) => `version ${row.version}` },
      { title: "Applied", cell: (row) => (row.applied_at ? time(row.applied_at) : "with the deployment") },
      { title: "By", class: "text", cell: (row) => row.by || "–" },
      { title: "Note", class: "text", cell: (row) => row.note || "–" },
      {
        title: "Text",
        cell: (row) =>
          el("button", { type: "button", data: { version: String(row.version) } }, `Load version ${row.version}`),
      },
    ],
  });
}

const isChanged = ({ now, other }) => now?.reason !== other?.reason || now?.latest_start !== other?.latest_start;

function summary({ diff, items, from_version: from }) {
  if (!diff.length) return `Nothing would change: it is the text of version ${from}.`;
  const changed = items.filter(isChanged).length;
  if (!items.length) return "The policy is valid. Nothing is waiting, so no request would be affected.";
  const affected = `${changed || "None"} of the next ${many(items.length, "request")}`;
  return `The policy is valid. ${affected} would have another expected start, or wait for another reason.`;
}

function effects({ diff, slots, other_slots: others, tiers, items }, linkOf) {
  if (!diff.length) return [];
  const line = (each) =>
    el("span", { class: /^\+(?!\+\+)/.test(each) ? "add" : /^-(?!--)/.test(each) ? "del" : null }, each);
  const lines = el(
    "pre",
    { class: "diff", tabindex: "0", role: "region", "aria-label": "Text of the difference" },
    diff.map(line),
  );
  return [
    panel("What would change", limits(slots, others, tiers), items.length ? requests(items, linkOf) : null),
    panel("Lines that differ", lines),
  ];
}

function limits(slots, others, tiers) {
  const quota = (value) => (value === null ? "no such tier" : String(value));
  const list = table({
    caption: "Slots",
    key: (row) => row.name,
    columns: [
      { title: "Limit", head: true, cell: (row) => row.name },
      { title: "In force", class: "number", cell: (row) => quota(row.quota) },
      { title: "Proposed", class: "number", cell: (row) => quota(row.other_quota) },
    ],
  });
  const quotas = tiers.map((tier) => ({ ...tier, name: `quota of tier ${tier.name}` }));
  list.update([...quotas, { name: "running_max, of all tiers", quota: slots, other_quota: others }]);
  return list.element;
}

function requests(items, linkOf) {
  const list = table({
    caption: "Waiting requests: those that would be affected first",
    key: (row) => row.request_id,
    columns: [
      {
        title: "Request",
        head: true,
        cell: (row) => [
          el("a", { href: linkOf(row.tenant_id, "requests", row.request_id) }, `${row.tenant_id}/${row.data_set}`),
          isChanged(row) ? [" ", el("span", { class: "badge busy" }, "changes")] : null,
        ],
      },
      { title: "Tier", cell: (row) => row.tier },
      { title: "Expected start, in force", cell: (row) => startOf(row.now) },
      { title: "Expected start, proposed", cell: (row) => startOf(row.other) },
      {
        title: "Why it waits, in force",
        class: "text",
        cell: (row) => row.now?.reason ?? "not among the next ones",
      },
      {
        title: "Why it waits, proposed",
        class: "text",
        cell: (row) => row.other?.reason ?? "not among the next ones",
      },
    ],
  });
  list.update([...items].sort((a, b) => Number(isChanged(b)) - Number(isChanged(a))));
  return list.element;
}

/** Return the expected start of a request that is among the next ones. */
const startOf = (prospect) => (prospect === null ? "–" : expectedStart(prospect.latest_start));
