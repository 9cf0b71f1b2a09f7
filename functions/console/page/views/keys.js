// The API keys of a tenant: what programs call the HTTP API with; made and revoked.

import { at, get, post } from "../api.js";
import { act, ask, banner, el, panel, select } from "../dom.js";
import { time } from "../format.js";
import { table } from "../table.js";

const SECONDS = 60;
const NAME_LENGTH_MAX = 60;
const DAYS_MAX = 365;
const ROLES = [
  ["tenant-reader", "read"],
  ["tenant-admin", "read and change"],
];

export function show(view, { tenant, mayChange, reload }) {
  const status = el("div", { role: "status" });
  const made = el("div");
  const create = el("button", { type: "button", class: "main" }, "Make a key");
  const list = listOf(mayChange);
  list.element.addEventListener("click", ({ target }) => {
    const { revoke, name } = target.dataset ?? {};
    if (revoke) act(target, status, () => revoked(revoke, name));
  });
  create.addEventListener("click", () => act(create, status, makeKey));
  view.append(
    panel(
      "Keys",
      el("p", { class: "quiet" }, "Programs call the HTTP API with a key instead of a person's password."),
      list.element,
      mayChange ? el("div", { class: "buttons more" }, create) : null,
      status,
      made,
    ),
  );

  async function makeKey() {
    const fields = {
      name: {
        label: "Name",
        control: el("input", { required: true, maxlength: NAME_LENGTH_MAX, autocomplete: "off" }),
        hint: "What it is for, such as “nightly upload”",
      },
      role: { label: "May", control: select(ROLES, "tenant-reader") },
      days: {
        label: "Valid for days",
        control: el("input", { type: "number", min: "1", max: String(DAYS_MAX), value: "90", required: true }),
      },
    };
    const submit = ({ name, role, days }) =>
      post(at`tenants/${tenant}/keys`, { name: name.trim(), role, days: Number(days) });
    const key = await ask({ title: "Make a key", action: "Make", fields, submit });
    if (!key) return;
    status.replaceChildren(banner("good", `The key ${key.name} is made.`));
    made.replaceChildren(secretOf(key, () => made.replaceChildren()));
    await reload();
  }

  async function revoked(id, name) {
    const text = [el("p", {}, "Programs that have it are refused from their next call on.")];
    const submit = () => post(at`tenants/${tenant}/keys/${id}/revoke`).then(() => true);
    if (!(await ask({ title: `Revoke ${name}?`, action: "Revoke", danger: true, text, submit }))) return;
    status.replaceChildren(banner("good", `The key ${name} is revoked.`));
    await reload();
  }

  async function load({ isAsked }) {
    const { items } = await get(at`tenants/${tenant}/keys`);
    list.update(items, { isAsked });
  }
  return { load, seconds: SECONDS };
}

/** Return what is shown of a new key, this once. */
function secretOf({ user_name: user, secret }, done) {
  const shown = (label, value) => el("div", {}, el("dt", {}, label), el("dd", {}, el("code", {}, value)));
  const copy = el("button", { type: "button" }, "Copy the secret");
  const said = el("span", { role: "status" });
  copy.addEventListener("click", () =>
    navigator.clipboard.writeText(secret).then(
      () => said.replaceChildren(" Copied."),
      () => said.replaceChildren(" The browser does not allow it: select the text instead."),
    ),
  );
  return el(
    "div",
    { class: "secret" },
    banner("", "Keep the secret now: it cannot be shown again."),
    el("dl", { class: "figures" }, shown("User name", user), shown("Secret", secret)),
    el("div", { class: "buttons" }, copy, el("button", { type: "button", onclick: done }, "I have kept it"), said),
  );
}

function listOf(mayChange) {
  const ends = ({ expires_at: end }) =>
    new Date(end) < new Date() ? el("span", { class: "badge warn" }, "expired") : time(end);
  const button = (row) =>
    el(
      "button",
      {
        type: "button",
        class: "danger",
        data: { revoke: row.key_id, name: row.name },
        "aria-label": `Revoke ${row.name}`,
      },
      "Revoke",
    );
  return table({
    key: (row) => row.key_id,
    empty: "There are no keys yet.",
    columns: [
      { title: "Name", head: true, cell: (row) => row.name },
      { title: "User name", class: "text", cell: (row) => el("code", {}, row.user_name) },
      { title: "May", cell: (row) => Object.fromEntries(ROLES)[row.role] ?? row.role },
      { title: "Made", cell: (row) => time(row.created_at) },
      { title: "By", class: "text", cell: (row) => row.created_by },
      { title: "Expires", cell: ends },
      { title: "Last used", cell: (row) => (row.last_used_at ? time(row.last_used_at) : "never") },
      ...(mayChange ? [{ title: "Actions", cell: button }] : []),
    ],
  });
}
