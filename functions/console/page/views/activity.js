// Runs over time, by tenant or by slot; how many ended in each hour, and how long requests waited.

import { get } from "../api.js";
import { columns, gantt, legend } from "../charts.js";
import { el, field, panel, select } from "../dom.js";
import { ended, ENDS } from "../ended.js";
import { badge, between, duration, stateName, time, today } from "../format.js";
import { table } from "../table.js";

export const title = () => "Activity";

const HOUR = 3600000;

export function show(view, context) {
  const { query, setQuery } = context;
  const day = el("input", { type: "date", value: query.day || today(), max: today(), required: true });
  const by = select(
    [
      ["tenant", "Tenant"],
      ["slot", "Slot"],
    ],
    query.by === "slot" ? "slot" : "tenant",
  );
  const timeline = el("div", { class: "tall" });
  const throughput = el("div", { style: { "min-height": "150px" } });
  const waits = el("div", { style: { "min-height": "150px" } });
  const partial = el("div");
  const list = table({
    key: (row) => row.request_id,
    empty: "Nothing ran on this day.",
    columns: [
      { title: "Request", head: true, cell: (row) => el("a", { href: address(row) }, row.request_id.slice(0, 8)) },
      { title: "Tenant", cell: (row) => row.tenant_id },
      { title: "Tier", cell: (row) => row.tier },
      { title: "State", cell: (row) => badge(row.state) },
      { title: "Started", cell: (row) => time(row.admitted_at) },
      { title: "Waited", class: "number", cell: (row) => duration(between(row.arrived_at, row.admitted_at)) },
      {
        title: "Ran",
        class: "number",
        cell: (row) => duration(between(row.admitted_at, row.finished_at || new Date().toISOString())),
      },
    ],
  });
  for (const control of [day, by]) {
    control.addEventListener("change", () => {
      setQuery({ day: day.value, by: by.value });
      context.reload();
    });
  }
  view.append(
    el("div", { class: "fields" }, field("Day (UTC)", day), field("Rows", by)),
    partial,
    panel("Runs", legend(["wait", "RUNNING", ...ENDS]), timeline),
    el(
      "div",
      { class: "panels" },
      panel("Ended in each hour (UTC)", legend(ENDS), throughput),
      panel("Median wait, by the hour of the start (UTC)", waits),
    ),
    panel("As a table", el("div", { class: "low" }, list.element)),
  );

  return async ({ isAsked }) => {
    const service = await get("v1/service");
    const tiers = service.tiers.map((tier) => tier.name);
    const isToday = day.value === today();
    const [past, running] = await Promise.all([
      ended(tiers, ENDS, day.value || today()),
      isToday ? get("v1/service/running") : { items: [] },
    ]);
    const runs = [...running.items, ...past.requests.filter((each) => each.admitted_at)];
    const [from, to] = span(runs, day.value, isToday);
    gantt(timeline, {
      rows: by.value === "slot" ? bySlot(runs) : byTenant(runs),
      from,
      to,
      description: `${runs.length} runs, by ${by.value}; the table below has them all`,
    });
    drawHours(throughput, waits, runs);
    list.update(runs, { isAsked });
    partial.replaceChildren(
      ...(past.isPartial
        ? [
            el(
              "p",
              { class: "banner" },
              "More ended on this day than is shown: of each tier and state, the newest 300.",
            ),
          ]
        : []),
    );
  };
}

const address = (request) => `#/t/${encodeURIComponent(request.tenant_id)}/requests/${request.request_id}`;
const ms = (text) => new Date(text).getTime();

function bar(request) {
  const [from, to] = [ms(request.admitted_at), request.finished_at ? ms(request.finished_at) : Date.now()];
  const times = `waited ${duration((from - ms(request.arrived_at)) / 1000)}, ran ${duration((to - from) / 1000)}`;
  const label = `${request.tenant_id}/${request.data_set}, ${stateName(request.state)}: ${times}`;
  return {
    id: request.request_id,
    href: address(request),
    label,
    state: request.state,
    arrived: ms(request.arrived_at),
    from,
    to,
  };
}

function byTenant(requests) {
  const rows = new Map();
  for (const request of requests)
    rows.set(request.tenant_id, [...(rows.get(request.tenant_id) || []), bar(request)]);
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, runs]) => ({ name, runs }));
}

/** Runs do not name their slots: each takes the first one of its tier that is free. */
function bySlot(requests) {
  const rows = new Map();
  for (const request of [...requests].sort((a, b) => ms(a.admitted_at) - ms(b.admitted_at))) {
    const run = { ...bar(request), arrived: null };
    const slots = rows.get(request.tier) || [];
    const free = slots.find((slot) => slot.at(-1).to <= run.from);
    if (free) free.push(run);
    else slots.push([run]);
    rows.set(request.tier, slots);
  }
  return [...rows].flatMap(([tier, slots]) =>
    slots.map((runs, index) => ({ name: `${tier} ${index + 1}`, runs })),
  );
}

function span(requests, day, isToday) {
  const [start, end] = [
    ms(`${day || today()}T00:00:00Z`),
    isToday ? Date.now() : ms(`${day}T00:00:00Z`) + 24 * HOUR,
  ];
  const first = Math.min(end - 600000, ...requests.map((each) => ms(each.arrived_at)));
  return [Math.max(start, first), end];
}

function drawHours(throughput, waits, runs) {
  const hours = Array.from({ length: 24 }, () => ({ waits: [], SUCCEEDED: 0, FAILED: 0, STOPPED: 0 }));
  for (const run of runs) {
    if (run.finished_at) hours[new Date(run.finished_at).getUTCHours()][run.state] += 1;
    hours[new Date(run.admitted_at).getUTCHours()].waits.push(between(run.arrived_at, run.admitted_at));
  }
  const label = (hour) => String(hour).padStart(2, "0");
  columns(throughput, {
    bars: hours.map((each, hour) => ({ label: label(hour), parts: ENDS.map((state) => [state, each[state]]) })),
    description: `Requests that ended in each hour: ${runs.filter((run) => run.finished_at).length} in all`,
  });
  columns(waits, {
    bars: hours.map((each, hour) => ({ label: label(hour), parts: [["wait", median(each.waits)]] })),
    unit: duration,
    description: `Median wait over the day: ${duration(median(hours.flatMap((each) => each.waits)))}`,
  });
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)] : 0;
}
