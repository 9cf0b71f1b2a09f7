// The service now: slots of each tier, what waits, what is paused; pause and resume.

import { get, post } from "../api.js";
import { ask, el, fill, panel } from "../dom.js";
import { count, figures, many, time } from "../format.js";
import { table } from "../table.js";

export const title = () => "Overview";

const NAMED_MAX = 5;

export function show(view, context) {
  const { mayChange } = context;
  const slots = el("div", { class: "waits" });
  const notes = el("div");
  const problem = el("div", { role: "status" });
  const list = table({
    key: (row) => row.name,
    empty: "The policy has no tiers.",
    columns: [
      {
        title: "Tier",
        head: true,
        cell: (row) => [
          row.name,
          " ",
          row.paused
            ? el("span", { class: "badge warn" }, "paused")
            : row.closed
              ? el("span", { class: "badge" }, "closed at this hour")
              : null,
        ],
      },
      { title: "Slots used", cell: meter },
      {
        title: "Waiting",
        class: "number",
        cell: (row) => el("a", { href: `#/queue?tier=${encodeURIComponent(row.name)}` }, count(row.waiting)),
      },
      { title: "Oldest arrived", cell: (row) => time(row.oldest_arrived_at) },
      { title: "Cannot start", cell: stuck },
      ...(mayChange
        ? [
            {
              title: "Change",
              cell: (row) =>
                el(
                  "button",
                  { type: "button", data: { tier: row.name, does: row.paused ? "resume" : "pause" } },
                  row.paused ? "Resume" : "Pause",
                  el("span", { class: "quiet" }, ""),
                ),
            },
          ]
        : []),
    ],
  });
  view.append(notes, problem, panel("Slots", slots), panel("Tiers", el("div", { class: "low" }, list.element)));
  view.addEventListener("click", async (event) => {
    const { does, tier, tenant, all } = event.target.dataset || {};
    const [what, name] = tier ? ["tier", tier] : tenant ? ["tenant", tenant] : all ? ["all", undefined] : [];
    if (does && what) await change(does, what, name);
  });

  async function change(does, what, name) {
    const words = what === "all" ? "the whole service" : `${what} ${name}`;
    const verb = does === "pause" ? "Pause" : "Resume";
    const reason = el("input", { maxlength: "200", size: "40" });
    const fields =
      does === "pause"
        ? { reason: { label: "Reason", control: reason, hint: "Shown to whoever looks at what is paused" } }
        : {};
    const text = [
      el(
        "p",
        {},
        does === "pause"
          ? "Nothing of it starts until it is resumed. What runs goes on, and uploads are still taken."
          : "What waits may start again.",
      ),
    ];
    const answer = await ask({
      title: `${verb} ${words}?`,
      text,
      fields,
      action: `${verb} ${words}`,
      danger: does === "pause",
    });
    if (!answer) return;
    try {
      await post(`v1/service/${does}`, { what, name, ...(does === "pause" ? { reason: answer.reason } : {}) });
      problem.replaceChildren();
    } catch (error) {
      problem.replaceChildren(el("p", { class: "banner bad" }, error.message));
    }
    await context.reload();
  }

  return async ({ isAsked }) => {
    const service = await get("v1/service");
    const waiting = service.tiers.reduce((sum, tier) => sum + tier.waiting, 0);
    fill(
      slots,
      figures([
        [
          "Slots used",
          `${service.used} of ${service.slots}`,
          service.throttled_to === null
            ? ""
            : el("small", {}, `SageMaker takes ${service.throttled_to} at present`),
        ],
        ["Waiting", el("a", { href: "#/queue" }, count(waiting)), el("small", {}, "in all tiers")],
        [
          "Policy",
          el("a", { href: "#/policy" }, `version ${service.policy_version}`),
          el("small", {}, service.windows_open.length ? `open: ${service.windows_open.join(", ")}` : ""),
        ],
        ["Limits change", time(service.limits_change_at)],
      ]),
      mayChange
        ? el(
            "div",
            { class: "buttons more" },
            el(
              "button",
              {
                type: "button",
                class: service.paused ? "" : "danger",
                data: { all: "1", does: service.paused ? "resume" : "pause" },
              },
              service.paused ? "Resume the service" : "Pause the service",
            ),
          )
        : null,
    );
    fill(notes, [...paused(service, mayChange)]);
    list.update(service.tiers, { isAsked });
  };
}

function meter(row) {
  const [own, borrowed] = [Math.min(row.used, row.quota), Math.max(0, row.used - row.quota)];
  const width = (part) => `${(100 * part) / Math.max(row.quota, row.used, 1)}%`;
  return el(
    "div",
    {},
    el(
      "div",
      { class: "meter", "aria-hidden": "true" },
      el("i", { style: { width: width(own) } }),
      el("i", { class: "extra", style: { width: width(borrowed) } }),
    ),
    `${row.used} of ${row.quota}${borrowed ? `, ${borrowed} borrowed` : ""}`,
  );
}

function stuck(row) {
  const reasons = Object.entries(row.parked);
  if (!reasons.length && !row.paused_tenants.length) return "–";
  return [
    ...reasons.map(([reason, tenants]) => el("div", {}, `${many(tenants, "tenant")}: ${reason}`)),
    row.paused_tenants.length ? el("div", {}, `${many(row.paused_tenants.length, "tenant")} paused`) : null,
  ];
}

function* paused(service, mayChange) {
  if (service.paused) yield el("p", { class: "banner" }, "The service is paused: nothing starts.");
  for (const tier of service.tiers) {
    for (const tenant of tier.paused_tenants.slice(0, NAMED_MAX)) {
      yield el(
        "p",
        { class: "banner" },
        "Tenant ",
        el("a", { href: `#/t/${encodeURIComponent(tenant)}/requests` }, tenant),
        " is paused, and has requests waiting. ",
        mayChange ? el("button", { type: "button", data: { tenant, does: "resume" } }, `Resume ${tenant}`) : null,
      );
    }
  }
}
