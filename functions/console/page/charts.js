// Charts of a few hundred rectangles. Their numbers are beside them as a table, for those who cannot see them.

import { el, svg } from "./dom.js";
import { stateName } from "./format.js";
import { table } from "./table.js";

const NARROW = 500;
const ROW = 22;
const AXIS = 22;
const ROWS_MAX = 60;

export function legend(kinds) {
  const name = (kind) => (kind === "wait" ? "Waited" : stateName(kind));
  return el(
    "ul",
    { class: "legend" },
    kinds.map((kind) => el("li", {}, el("i", { class: kind }), name(kind))),
  );
}

/** Return an image of a size in pixels, with what a screen reader says of it. */
function picture(width, height, description, ...parts) {
  const viewBox = `0 0 ${width} ${height}`;
  return svg("svg", { class: "chart", height, viewBox, role: "img", "aria-label": description }, parts);
}

/** Draw runs over time, in UTC. rows: [{ name, runs: [{ href, label, state, arrived, from, to }] }], in ms. */
export function gantt(holder, { rows, from, to, description }) {
  const width = Math.max(holder.clientWidth, 280);
  const names = width < NARROW ? 80 : 130;
  const shown = rows.slice(0, ROWS_MAX);
  const height = shown.length * ROW + AXIS;
  const x = (at) => names + ((Math.min(Math.max(at, from), to) - from) / (to - from || 1)) * (width - names - 4);
  const marks = ticks(from, to, width < NARROW ? 3 : 8).map((at) => [
    svg("line", { x1: x(at), x2: x(at), y1: 0, y2: height - AXIS }),
    svg("text", { x: x(at), y: height - 6, "text-anchor": "middle" }, clock(at)),
  ]);
  const bars = shown.map((row, index) => [
    svg("text", { class: "name", x: 0, y: index * ROW + 15 }, short(row.name, Math.floor(names / 7))),
    row.runs.map((run) => bar(run, index * ROW + 4, x)),
  ]);
  holder.replaceChildren(picture(width, height, description, marks, bars));
  const more = rows.length - shown.length;
  if (more > 0) holder.append(el("p", { class: "quiet" }, `${more} more are not drawn: the table has all runs.`));
}

/** A run is opened by a click; the links for the keyboard are in the table. */
function bar(run, y, x) {
  const wait = {
    class: "wait",
    x: x(run.arrived ?? run.from),
    y: y + 4,
    height: 6,
    width: Math.max(x(run.from) - x(run.arrived ?? run.from), 0),
  };
  const ran = {
    class: run.state,
    x: x(run.from),
    y,
    height: 14,
    rx: 2,
    width: Math.max(x(run.to) - x(run.from), 3),
  };
  const open = () => {
    location.hash = run.href;
  };
  return svg("g", { onclick: open }, svg("rect", wait), svg("rect", ran), svg("title", {}, run.label));
}

/** Draw bars, of one or several parts each, above each other. bars: [{ label, parts: [[class, value]] }]. */
export function columns(holder, { bars, description, unit = String, height = 150 }) {
  const width = Math.max(holder.clientWidth, 240);
  const total = (each) => each.parts.reduce((sum, [, value]) => sum + value, 0);
  const most = Math.max(...bars.map(total));
  const [left, bottom] = [48, 20];
  const step = (width - left) / Math.max(bars.length, 1);
  const every = Math.ceil(bars.length / Math.max(2, Math.floor((width - left) / 56)));
  const scale = (value) => (most ? (value / most) * (height - bottom - 14) : 0);
  const stacked = (each, index) => {
    let y = height - bottom;
    return each.parts
      .filter(([, value]) => value)
      .map(([kind, value]) => {
        y -= scale(value);
        const box = {
          class: kind,
          x: left + index * step + 1,
          y: y + 1,
          width: Math.max(step - 2, 1),
          height: Math.max(scale(value) - 1, 1),
        };
        return svg("rect", box, svg("title", {}, `${each.label}: ${unit(value)}`));
      });
  };
  const label = (each, index) =>
    index % every === 0 &&
    svg("text", { x: left + (index + 0.5) * step, y: height - 5, "text-anchor": "middle" }, each.label);
  holder.replaceChildren(
    picture(
      width,
      height,
      description,
      svg("line", { x1: left, x2: width, y1: height - bottom, y2: height - bottom }),
      svg("text", { x: left - 6, y: 12, "text-anchor": "end" }, unit(most)),
      svg("text", { x: left - 6, y: height - bottom, "text-anchor": "end" }, unit(0)),
      bars.map((each, index) => [stacked(each, index), label(each, index)]),
    ),
  );
}

/** Return a table of what bars show, which is opened by the user. names: class → title of its column. */
export function numbers({ bars, names, unit = String }) {
  const list = table({
    key: (row) => row.label,
    empty: "There are none.",
    columns: [
      { title: "Hour", head: true, cell: (row) => row.label },
      ...Object.entries(names).map(([kind, title]) => ({
        title,
        class: "number",
        cell: (row) => unit(Object.fromEntries(row.parts)[kind] ?? 0),
      })),
    ],
  });
  list.update(bars.filter((each) => each.parts.some(([, value]) => value)));
  return list.element;
}

const short = (text, most) => (text.length > most ? `${text.slice(0, Math.max(most - 1, 1))}…` : text);
const clock = (at) => new Date(at).toISOString().slice(11, 16);

function ticks(from, to, most) {
  const steps = [1, 2, 5, 10, 30, 60, 120, 180, 360, 720, 1440].map((minutes) => minutes * 60000);
  const step = steps.find((each) => (to - from) / each <= most) || steps.at(-1);
  const first = Math.ceil(from / step) * step;
  return Array.from(
    { length: Math.max(0, Math.floor((to - first) / step) + 1) },
    (_, index) => first + index * step,
  );
}
