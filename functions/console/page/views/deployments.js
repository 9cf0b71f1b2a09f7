// What answers calls for data sets, of one tenant or of all; promoted, rolled back and stopped.

import { at, get, post } from "../api.js";
import { act, ask, banner, el, panel } from "../dom.js";
import { count, many, time } from "../format.js";
import { pages, table } from "../table.js";

const PAGE = 50;
const PROMOTION =
  "A canary answers all calls from then on. A version in test answers calls in production: its share of them " +
  "first, if the data set has canaries.";
const ROLL_BACK =
  "It answers no calls from the next one on. If it is live, the previous version takes its place at once.";

export function show(view, { tenant, mayChange, linkOf, reload }) {
  const status = el("div", { role: "status" });
  const more = el("button", { type: "button", hidden: true }, "Show more");
  const list = listOf({ tenant, mayChange, linkOf });
  const path = tenant ? at`tenants/${tenant}/deployments` : "v1/service/deployments";
  const book = pages({ read: (cursor) => get(path, tenant ? {} : { limit: PAGE, cursor }), key: nameOf });
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
  list.element.addEventListener("click", ({ target }) => {
    const { does, owner, set, version, role } = target.dataset ?? {};
    if (does) act(target, status, () => CHANGES[does](owner, set, Number(version), role));
  });
  view.append(panel("What answers calls", list.element, el("div", { class: "more" }, more), status));

  /** Ask, change it, and say what was done. */
  async function change(owner, set, { title, action, text, danger = false, verb, body, words }) {
    const path = at`tenants/${owner}/deployments/${set}`;
    const submit = () => post(`${path}/${verb}`, body);
    if (!(await ask({ title, action, danger, text: [el("p", {}, text)], submit }))) return;
    status.replaceChildren(banner("good", words));
    await reload();
  }

  const CHANGES = {
    promote: (owner, set, version, role) =>
      change(owner, set, {
        title: `Promote version ${version} of ${set}?`,
        action: "Promote",
        text: PROMOTION,
        verb: "promote",
        body: { version, role },
        words: `Version ${version} of ${set} was promoted.`,
      }),
    back: (owner, set, version) =>
      change(owner, set, {
        title: `Roll back version ${version} of ${set}?`,
        action: "Roll back",
        danger: true,
        text: ROLL_BACK,
        verb: "roll-back",
        body: { version },
        words: `Version ${version} of ${set} is out of service. It can be approved again.`,
      }),
    stop: async (owner, set) => {
      const { versions } = await post(at`tenants/${owner}/deployments/${set}/stop`, { dry_run: true });
      if (!versions.length) throw new Error(`No version of ${set} answers calls.`);
      await change(owner, set, {
        title: `Stop ${many(versions.length, "version")} of ${set}?`,
        action: "Stop",
        danger: true,
        text: `Version ${versions.join(", ")}: calls are refused from then on, until a version is approved again.`,
        verb: "stop",
        body: {},
        words: `${set} is out of service.`,
      });
    },
  };

  return { load: async ({ isAsked }) => shown(await book.load(), isAsked) };
}

const nameOf = (row) => `${row.tenant_id}/${row.data_set}`;

function listOf({ tenant, mayChange, linkOf }) {
  const version = (row, number) => el("a", { href: linkOf(row.tenant_id, "models", number) }, `version ${number}`);
  const owner = (row) =>
    tenant
      ? row.data_set
      : [el("a", { href: linkOf(row.tenant_id, "deployments") }, row.tenant_id), `/${row.data_set}`];
  return table({
    key: nameOf,
    empty: "Nothing is deployed: where the service deploys models, a version that is approved is.",
    columns: [
      { title: "Data set", head: true, cell: owner },
      { title: "Live", cell: (row) => (row.live ? [version(row, row.live), ...shareOf(row, row.live)] : "none") },
      { title: "Next", cell: (row) => next(row, version) },
      { title: "Before", cell: (row) => (row.previous ? version(row, row.previous) : "–") },
      { title: "Served by", cell: (row) => [...new Set(row.versions.map((each) => each.mode))].join(", ") || "–" },
      { title: "Calls", class: "number", cell: calls },
      ...(mayChange ? [{ title: "Actions", cell: buttons }] : []),
    ],
  });
}

const detail = (row, number) => row.versions.find((each) => each.version === number);

function shareOf(row, number) {
  const { percent = 100 } = detail(row, number) ?? {};
  return percent < 100 ? [`, ${percent} %`] : [];
}

/** Return what is deployed after the live version: a canary, one in test, one that is coming, one that waits. */
function next(row, version) {
  const ends = row.test_ends_at ? [" until ", time(row.test_ends_at)] : [];
  const roles = [
    [row.canary, `canary, ${row.canary_percent} % of calls`],
    [row.testing, ["in test", ...ends]],
    [row.deploying, "being deployed"],
    [row.waiting, "waiting"],
  ].filter(([number]) => number);
  if (!roles.length) return "–";
  return roles.map(([number, words]) =>
    el("div", {}, version(row, number), " ", el("span", { class: "badge busy" }, words), reasonOf(row, number)),
  );
}

function reasonOf(row, number) {
  const { reason } = detail(row, number) ?? {};
  return reason ? el("small", {}, ` ${reason}`) : null;
}

function calls(row) {
  const sum = (name) => row.versions.reduce((total, each) => total + each[name], 0);
  const failed = sum("failed");
  return [
    count(sum("calls")),
    " ",
    el("small", {}, failed ? `${count(failed)} failed, ` : "", "since ", time(row.calls_since)),
  ];
}

function buttons(row) {
  const button = (does, text, version) =>
    el(
      "button",
      {
        type: "button",
        data: {
          does,
          owner: row.tenant_id,
          set: row.data_set,
          version: version ?? "",
          role: version === row.canary ? "canary" : "testing",
        },
        class: does === "promote" ? "" : "danger",
        "aria-label": `${text}: ${nameOf(row)}${version ? `, version ${version}` : ""}`,
      },
      text,
    );
  const newer = row.canary ?? row.testing;
  const back = newer ?? (row.previous ? row.live : null);
  const isServed = row.live || newer || row.deploying || row.waiting;
  return el(
    "div",
    { class: "buttons" },
    newer ? button("promote", "Promote", newer) : null,
    back ? button("back", "Roll back", back) : null,
    isServed ? button("stop", "Stop") : null,
  );
}
