// The service now: slots of each tier, what waits, what is paused; pause and resume.

import { get, post } from "../api.js";
import { act, ask, banner, el, fill, panel } from "../dom.js";
import { bulkActions } from "../bulk.js";
import { count, figures, many, time } from "../format.js";
import { table } from "../table.js";

const SECONDS_BETWEEN_CHECKS = 60;
const REASON_LENGTH_MAX = 200;
const PAUSED = "No new trainings start until it is resumed. What runs goes on, and uploads are still taken.";

export function show(view, context) {
  const { mayChange, reload, linkOf } = context;
  const slots = el("div", { class: "waits" });
  const notes = el("div");
  const status = el("div", { role: "status" });
  const whole = el("button", { type: "button", hidden: true, data: { what: "all" } });
  const halt = el("button", { type: "button", class: "danger", hidden: true }, "Halt the service");
  const bulk = bulkActions({ path: "v1/service/bulk-actions", mayChange, ended: () => reload() });
  const findings = findingsOf();
  const list = listOf(mayChange);
  let service = null;
  view.append(
    panel("Slots", slots, el("div", { class: "buttons more" }, whole, halt), notes, status, bulk.element),
    panel("Tiers", list.element),
    panel("Health", findings.element),
  );

  view.addEventListener("click", ({ target }) => {
    const { what, name } = target.dataset ?? {};
    if (what) act(target, status, () => change(what, name, target.dataset.does));
  });

  halt.addEventListener("click", () =>
    act(halt, status, async () => {
      const { total } = await post("v1/service/halt", { what: "all", dry_run: true });
      const control = el("input", { maxlength: REASON_LENGTH_MAX, size: "40", required: true });
      const fields = { reason: { label: "Reason", control, hint: "Shown to operators, with your name" } };
      const words = `The service is paused, and ${many(total, "run")} stopped; the cost so far is still charged.`;
      const title = "Halt the service";
      const answer = await ask({
        title: `${title}?`,
        text: [el("p", {}, words)],
        fields,
        action: title,
        danger: true,
      });
      if (!answer) return;
      await post("v1/service/halt", { what: "all", ...answer });
      status.replaceChildren(
        banner(
          "good",
          total ? "The service is paused, and what runs is being stopped." : "The service is paused.",
        ),
      );
      await reload();
    }),
  );

  async function change(what, name, verb) {
    const words = what === "all" ? "the service" : `${what} ${name}`;
    const title = `${verb === "pause" ? "Pause" : "Resume"} ${words}`;
    const control = el("input", { maxlength: REASON_LENGTH_MAX, size: "40" });
    const fields =
      verb === "pause" ? { reason: { label: "Reason", control, hint: "Shown to operators, with your name" } } : {};
    const text = [el("p", {}, verb === "pause" ? PAUSED : "Waiting requests may start again.")];
    const answer = await ask({ title: `${title}?`, text, fields, action: title, danger: verb === "pause" });
    if (!answer) return;
    await post(`v1/service/${verb}`, { what, name, ...answer });
    const done = `${words[0].toUpperCase()}${words.slice(1)} has been ${verb}d.`;
    status.replaceChildren(banner("good", done));
    await reload();
  }

  async function load({ isAsked }) {
    service = await get("v1/service");
    fill(slots, totals(service));
    fill(
      notes,
      service.pauses.map((pause) => paused(pause, mayChange, linkOf)),
    );
    whole.hidden = halt.hidden = !mayChange;
    whole.dataset.does = service.paused ? "resume" : "pause";
    whole.textContent = service.paused ? "Resume the service" : "Pause the service";
    whole.className = service.paused ? "" : "danger";
    const own = new Set(service.pauses.filter((pause) => pause.what === "tier").map((pause) => pause.name));
    list.update(
      service.tiers.map((tier) => ({ ...tier, isPausedItself: own.has(tier.name) })),
      { isAsked },
    );
    await Promise.all([bulk.load(), findings.load()]);
  }
  return { load, leave: bulk.leave };
}

/** Return { element, load }: what is wrong with the service, looked at now and then. */
function findingsOf() {
  const kinds = { ok: "good", warning: "warn", BAD: "bad" };
  let lookedAt = 0;
  const list = table({
    key: (row) => `${row.check} ${row.text}`,
    empty: "Nothing has been checked yet.",
    columns: [
      { title: "Check", head: true, cell: (row) => row.check },
      {
        title: "Result",
        cell: (row) => el("span", { class: `badge ${kinds[row.result] ?? ""}` }, row.result.toLowerCase()),
      },
      { title: "Finding", class: "text", cell: (row) => row.text },
      { title: "What to do", class: "text", cell: (row) => row.remedy || "–" },
    ],
  });
  async function load() {
    if (Date.now() - lookedAt < SECONDS_BETWEEN_CHECKS * 1000) return;
    lookedAt = Date.now();
    list.update((await get("v1/service/health")).items);
  }
  return { element: list.element, load };
}

function totals(service) {
  const waiting = service.tiers.reduce((sum, tier) => sum + tier.waiting, 0);
  const throttled =
    service.throttled_to === null ? null : el("small", {}, `SageMaker currently accepts ${service.throttled_to}`);
  const open = service.windows_open.length
    ? el("small", {}, `open windows: ${service.windows_open.join(", ")}`)
    : null;
  return figures([
    ["Slots used", `${service.used} of ${service.slots}`, throttled],
    ["Waiting requests", el("a", { href: "#/queue" }, count(waiting)), el("small", {}, "in all tiers")],
    ["Policy", el("a", { href: "#/policy" }, `version ${service.policy_version}`), open],
    service.limits_change_at
      ? ["Limits change", time(service.limits_change_at), el("small", {}, service.limits_change.join("; "))]
      : null,
  ]);
}

function listOf(mayChange) {
  const button = (row) => {
    const verb = row.isPausedItself ? "resume" : "pause";
    return el(
      "button",
      {
        type: "button",
        data: { what: "tier", name: row.name, does: verb },
        "aria-label": `${verb === "pause" ? "Pause" : "Resume"} tier ${row.name}`,
      },
      verb === "pause" ? "Pause" : "Resume",
    );
  };
  return table({
    key: (row) => row.name,
    empty: "The policy has no tiers.",
    columns: [
      { title: "Tier", head: true, cell: (row) => [row.name, " ", state(row)] },
      { title: "Slots used", cell: meter },
      {
        title: "Waiting",
        class: "number",
        cell: (row) => el("a", { href: `#/queue?tier=${encodeURIComponent(row.name)}` }, count(row.waiting)),
      },
      { title: "Oldest arrived", cell: (row) => time(row.oldest_arrived_at) },
      { title: "Held back", class: "text", cell: heldBack },
      ...(mayChange ? [{ title: "Change", cell: button }] : []),
    ],
  });
}

function state(row) {
  if (row.paused) return el("span", { class: "badge warn" }, "paused");
  return row.closed ? el("span", { class: "badge" }, "closed at this hour") : null;
}

function meter(row) {
  const [own, borrowed] = [Math.min(row.used, row.quota), Math.max(0, row.used - row.quota)];
  const width = (part) => ({ width: `${(100 * part) / Math.max(row.quota, row.used, 1)}%` });
  const bar = el(
    "div",
    { class: "meter", "aria-hidden": "true" },
    el("i", { style: width(own) }),
    el("i", { class: "extra", style: width(borrowed) }),
  );
  return [bar, `${row.used} of ${row.quota}${borrowed ? `, ${borrowed} borrowed` : ""}`];
}

function heldBack(row) {
  const reasons = Object.entries(row.parked).map(([reason, tenants]) => `${many(tenants, "tenant")}: ${reason}`);
  if (row.paused_tenants.length) reasons.push(`${many(row.paused_tenants.length, "tenant")} paused`);
  if (row.paused && row.waiting) reasons.unshift(`${many(row.waiting, "request")}: the tier is paused`);
  return reasons.length ? reasons.map((text) => el("div", {}, text)) : "–";
}

function paused({ what, name, since, by, reason }, mayChange, linkOf) {
  const whose = {
    all: "The service",
    tier: `Tier ${name}`,
    tenant: ["Tenant ", el("a", { href: linkOf(name ?? "", "requests") }, name)],
  }[what];
  const resume = el(
    "button",
    { type: "button", data: { what, name: name ?? undefined, does: "resume" } },
    name ? `Resume ${name}` : "Resume",
  );
  return banner(
    "",
    whose,
    since ? [" has been paused since ", time(since), ` by ${by}`] : " is paused",
    reason ? `: ${reason}` : null,
    " ",
    mayChange && what === "tenant" ? resume : null,
  );
}
