// Runs over time, by tenant or by slot; how many ended in each hour, and how long requests waited. In UTC.

import { get } from "../api.js";
import { columns, gantt, legend, numbers } from "../charts.js";
import { banner, el, field, panel, select } from "../dom.js";
import { endedOn, ENDS } from "../ended.js";
import { badge, between, duration, many, stateName, time, today } from "../format.js";
import { table } from "../table.js";

const HOUR = 3600000;
const HOURS_AHEAD = 24;
const SECONDS = 60;

export function show(view, context) {
  const { query, setQuery, linkOf } = context;
  const day = el("input", { type: "date", value: query.day || today(), required: true });
  const by = select(
    [
      ["tenant", "Tenant"],
      ["slot", "Slot"],
    ],
    query.by === "slot" ? "slot" : "tenant",
  );
  const holder = (height) => el("div", { style: { "min-height": `${height}px` } });
  const charts = {
    timeline: holder(150),
    throughput: holder(150),
    waits: holder(150),
    load: holder(150),
    loadNotes: el("div"),
    loadNumbers: el("div"),
    throughputNumbers: el("div"),
    waitNumbers: el("div"),
  };
  const partial = el("div");
  const list = listOf(linkOf);
  let ended = null;
  const choose = () => {
    ended = endedOn(day.value || today(), ENDS);
  };
  day.addEventListener("change", choose);
  for (const control of [day, by]) {
    control.addEventListener("change", () => {
      setQuery({ day: day.value === today() ? "" : day.value, by: by.value });
      context.reload();
    });
  }
  choose();
  view.append(
    el("div", { class: "fields" }, field("Day (UTC)", day), field("Group by", by)),
    partial,
    panel("Runs (UTC)", legend(["wait", "RUNNING", ...ENDS]), charts.timeline),
    el(
      "div",
      { class: "panels" },
      panel(
        "Requests ended by hour (UTC)",
        legend(ENDS),
        charts.throughput,
        details("Numbers", charts.throughputNumbers),
      ),
      panel("Median wait by hour of start (UTC)", charts.waits, details("Numbers", charts.waitNumbers)),
    ),
    panel(
      "What schedules will ask for, by hour (UTC)",
      charts.load,
      charts.loadNotes,
      details("Numbers", charts.loadNumbers),
    ),
    panel("All runs", list.element),
  );

  async function load({ isAsked }) {
    const chosen = day.value || today();
    const { tiers } = await get("v1/service");
    const [past, running, calendar] = await Promise.all([
      ended(tiers.map((tier) => tier.name)),
      chosen === today() ? get("v1/service/running") : { items: [] },
      get("v1/service/calendar", { hours: HOURS_AHEAD }),
    ]);
    drawLoad(charts, calendar);
    const runs = merged(running.items, past.requests);
    draw(charts, runs, chosen, by.value, linkOf);
    list.update(runs, { isAsked });
    partial.replaceChildren(
      ...(past.isPartial ? [banner("", "Only the newest 300 per tier and state are shown.")] : []),
    );
  }
  return { load, seconds: SECONDS };
}

/** Draw what schedules will ask for in the next hours, beside how much may run at once. */
function drawLoad({ load, loadNotes, loadNumbers }, { hours, slots, schedules, unreadable }) {
  const bars = hours.map(({ begins, runs }) => ({ label: begins.slice(11, 16), parts: [["RUNNING", runs]] }));
  const description = `Runs that ${many(schedules, "schedule")} will ask for, by the hour`;
  if (schedules) columns(load, { bars, description, unit: (value) => String(Math.round(value * 10) / 10) });
  else load.replaceChildren(el("p", { class: "quiet" }, "There are no schedules."));
  loadNotes.replaceChildren(
    el("p", { class: "quiet" }, `${many(schedules, "schedule")}; ${many(slots, "run")} may run at once.`),
    ...unreadable.map((words) => banner("", words)),
  );
  loadNumbers.replaceChildren(numbers({ bars, names: { RUNNING: "Runs" } }));
}

const details = (title, content) => el("details", {}, el("summary", {}, title), content);

function listOf(linkOf) {
  const ran = (row) => duration(between(row.admitted_at, row.finished_at || new Date().toISOString()));
  return table({
    key: (row) => row.request_id,
    empty: "No run ended on this day, and none is running.",
    columns: [
      {
        title: "Request",
        head: true,
        cell: (row) =>
          el("a", { href: linkOf(row.tenant_id, "requests", row.request_id) }, row.request_id.slice(0, 8)),
      },
      { title: "Tenant", cell: (row) => row.tenant_id },
      { title: "Tier", cell: (row) => row.tier },
      { title: "State", cell: (row) => badge(row.state) },
      { title: "Started", cell: (row) => time(row.admitted_at) },
      { title: "Waited", class: "number", cell: (row) => duration(between(row.arrived_at, row.admitted_at)) },
      { title: "Ran", class: "number", cell: ran },
    ],
  });
}

/** Return what runs and what has run; a request that has just ended may be in both lists. */
function merged(running, ended) {
  const runs = new Map(running.map((request) => [request.request_id, request]));
  for (const request of ended) if (request.admitted_at) runs.set(request.request_id, request);
  return [...runs.values()];
}

const ms = (text) => new Date(text).getTime();

function draw(charts, runs, day, by, linkOf) {
  const start = ms(`${day}T00:00:00Z`);
  const end = Math.min(Date.now(), start + 24 * HOUR);
  const first = Math.min(end - HOUR / 6, ...runs.map((run) => ms(run.arrived_at)));
  const rows = by === "slot" ? bySlot(runs, linkOf) : byTenant(runs, linkOf);
  gantt(charts.timeline, {
    rows,
    from: Math.max(start, first),
    to: end,
    description: `${runs.length} runs, by ${by}; the table of all runs has them`,
  });
  const hours = Array.from({ length: 24 }, (_, hour) => hourOf(runs, start + hour * HOUR, hour));
  const throughput = hours.map(({ label, ends }) => ({
    label,
    parts: ENDS.map((state) => [state, ends.filter((run) => run.state === state).length]),
  }));
  const waits = hours.map(({ label, waited }) => ({ label, parts: [["wait", median(waited)]] }));
  const all = hours.flatMap((hour) => hour.waited);
  columns(charts.throughput, {
    bars: throughput,
    description: `Requests that ended in each hour: ${hours.flatMap((hour) => hour.ends).length} in all`,
  });
  columns(charts.waits, {
    bars: waits,
    unit: duration,
    description: `Median wait over the day: ${duration(median(all))}`,
  });
  charts.throughputNumbers.replaceChildren(
    numbers({ bars: throughput, names: Object.fromEntries(ENDS.map((state) => [state, stateName(state)])) }),
  );
  charts.waitNumbers.replaceChildren(numbers({ bars: waits, names: { wait: "Median wait" }, unit: duration }));
}

function hourOf(runs, from, hour) {
  const isWithin = (text) => text && ms(text) >= from && ms(text) < from + HOUR;
  return {
    label: String(hour).padStart(2, "0"),
    ends: runs.filter((run) => isWithin(run.finished_at)),
    waited: runs.filter((run) => isWithin(run.admitted_at)).map((run) => between(run.arrived_at, run.admitted_at)),
  };
}

function bar(request, linkOf) {
  const [from, to] = [ms(request.admitted_at), request.finished_at ? ms(request.finished_at) : Date.now()];
  const times = `waited ${duration((from - ms(request.arrived_at)) / 1000)}, ran ${duration((to - from) / 1000)}`;
  const label = `${request.tenant_id}/${request.data_set}, ${stateName(request.state)}: ${times}`;
  return {
    href: linkOf(request.tenant_id, "requests", request.request_id),
    label,
    state: request.state,
    arrived: ms(request.arrived_at),
    from,
    to,
  };
}

function byTenant(requests, linkOf) {
  const rows = new Map();
  for (const request of requests)
    rows.set(request.tenant_id, [...(rows.get(request.tenant_id) || []), bar(request, linkOf)]);
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, runs]) => ({ name, runs }));
}

/** Runs do not name their slots: each takes the first one of its tier that is free. */
function bySlot(requests, linkOf) {
  const rows = new Map();
  for (const request of [...requests].sort((a, b) => ms(a.admitted_at) - ms(b.admitted_at))) {
    const run = { ...bar(request, linkOf), arrived: null };
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

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)] : 0;
}
