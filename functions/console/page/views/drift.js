// Drift: how the data of a training has moved from that of the last one, column by column.

import { ApiError, at, get } from "../api.js";
import { banner, el, panel, svg } from "../dom.js";
import { count, many } from "../format.js";
import { table } from "../table.js";

const ENDED = ["SUCCEEDED", "FAILED", "STOPPED"];
const SHOWN = 30;
const [WIDTH, HEIGHT] = [120, 28];
const PERCENT = 100;

/** Return { element, load(request) }; it is hidden where nothing was compared. */
export function driftOf({ tenant, id }) {
  const words = el("div");
  const list = listOf();
  const element = panel("Data, beside the last training's", words, list.element);
  element.hidden = true;
  let isRead = false;

  async function load(request) {
    if (isRead || !ENDED.includes(request.state)) return;
    isRead = true;
    try {
      const { report } = await get(at`tenants/${tenant}/requests/${id}/drift`);
      if (report === null) return;
      const moved = report.columns.filter((column) => column.band !== "stable");
      words.replaceChildren(...told(report, moved));
      list.update((moved.length ? moved : report.columns).slice(0, SHOWN), { isAsked: true });
      element.hidden = false;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // A script of the tenant's own wrote something else: then there is nothing to show.
    }
  }
  return { element, load };
}

function told(report, moved) {
  const named = (text, names) =>
    names.length ? banner("", `${text}: ${names.slice(0, SHOWN).join(", ")}`) : null;
  const rows = `${many(report.rows, "row")}, ${count(report.rows_before)} in the training before. `;
  const far = moved.length ? `${many(moved.length, "column")} moved.` : "No column has moved.";
  return [
    el("p", { class: "quiet" }, rows + far),
    named("Columns that are not there any more", report.absent),
    named("Columns of another kind", report.changed),
    named("Columns that were not there before", report.added),
    named("Columns from which nothing can be learnt any more", report.emptied),
    named(
      "Columns that look as if they had been swapped",
      report.swapped.map((pair) => pair.join(" and ")),
    ),
  ].filter(Boolean);
}

/** Draw the rows of a column by bin. */
function bars({ counts }, name) {
  const most = Math.max(...counts, 1);
  const step = WIDTH / counts.length;
  const boxes = counts.map((rows, index) => {
    const height = rows ? Math.max((rows / most) * HEIGHT, 1) : 0;
    return svg("rect", {
      class: "RUNNING",
      x: index * step,
      y: HEIGHT - height,
      width: Math.max(step - 1, 1),
      height,
    });
  });
  const properties = { width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" };
  return svg(
    "svg",
    { class: "chart bins", "aria-label": `${name}: ${counts.join(", ")} rows by bin`, ...properties },
    boxes,
  );
}

const missing = ({ counts, missing: none }) => {
  const rows = counts.reduce((sum, each) => sum + each, 0) + none;
  return `${rows ? Math.round((PERCENT * none) / rows) : 0} %`;
};

function listOf() {
  return table({
    caption: "Columns, those that moved farthest first",
    key: (column) => column.name,
    empty: "There are no columns to compare.",
    columns: [
      { title: "Column", head: true, class: "text", cell: (column) => column.name },
      { title: "Distance", class: "number", cell: (column) => column.index.toFixed(2) },
      { title: "Moved", cell: (column) => ({ shifted: "far", moderate: "somewhat" })[column.band] ?? "no" },
      { title: "Before", cell: (column) => bars(column.before, "before") },
      { title: "Now", cell: (column) => bars(column.now, "now") },
      { title: "Missing", cell: (column) => `${missing(column.before)} → ${missing(column.now)}` },
    ],
  });
}
