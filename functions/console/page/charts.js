// Charts of a few hundred rectangles. Each has its numbers beside it as a table, for those who cannot see it.

import { el, svg } from "./dom.js";
import { stateName } from "./format.js";

const NAME_WIDTH = 130;
const ROW = 22;
const AXIS = 22;
const ROWS_MAX = 60;

export function legend(kinds) {
  const text = { wait: "Waited" };
  return el(
    "ul",
    { class: "legend" },
    kinds.map((kind) => el("li", {}, el("i", { class: kind }), text[kind] || stateName(kind))),
  );
}

/** Draw runs over time. rows: [{ name, runs: [{ id, href, label, state, arrived, from, to }] }], times in ms. */
export function gantt(holder, { rows, from, to, description }) {
  const width = Math.max(holder.clientWidth, 280);
  const names = width < 500 ? 80 : NAME_WIDTH;
  const shown = rows.slice(0, ROWS_MAX);
  const height = shown.length * ROW + AXIS;
  const x = (at) => names + ((Math.min(Math.max(at, from), to) - from) / (to - from || 1)) * (width - names - 4);
  const marks = ticks(from, to, width < 500 ? 3 : 8).map((at) => [
    svg("line", { x1: x(at), x2: x(at), y1: 0, y2: height - AXIS }),
    svg("text", { x: x(at), y: height - 6, "text-anchor": "middle" }, clock(at, to - from)),
  ]);
  const bars = shown.map((row, index) => {
    const y = index * ROW + 4;
    return [
      svg("text", { class: "name", x: 0, y: y + 11 }, short(row.name, Math.floor(names / 7))),
      row.runs.map((run) =>
        svg(
          "g",
          {},
          run.arrived && run.arrived < run.from
            ? svg("rect", {
                class: "wait",
                x: x(run.arrived),
                y: y + 4,
                height: 6,
                width: Math.max(x(run.from) - x(run.arrived), 0),
              })
            : null,
          svg("rect", {
            class: run.state,
            x: x(run.from),
            y,
            height: 14,
            rx: 2,
            width: Math.max(x(run.to) - x(run.from), 2),
          }),
          svg("title", {}, run.label),
        ),
      ),
    ];
  });
  holder.replaceChildren(
    svg(
      "svg",
      { class: "chart", height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description },
      marks,
      bars,
    ),
  );
  if (rows.length > shown.length)
    holder.append(el("p", { class: "quiet" }, `${rows.length - shown.length} more rows are in the table.`));
}

/** Draw bars, of one or several parts each. bars: [{ label, parts: [[class, value]] }]. */
export function columns(holder, { bars, description, unit = (value) => String(value), height = 150 }) {
  const width = Math.max(holder.clientWidth, 240);
  const most = Math.max(1e-9, ...bars.map((bar) => bar.parts.reduce((sum, [, value]) => sum + value, 0)));
  const [left, bottom] = [48, 20];
  const step = (width - left) / Math.max(bars.length, 1);
  const scale = (value) => (value / most) * (height - bottom - 14);
  const every = Math.ceil(bars.length / Math.max(2, Math.floor((width - left) / 56)));
  holder.replaceChildren(
    svg(
      "svg",
      { class: "chart", height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description },
      svg("line", { x1: left, x2: width, y1: height - bottom, y2: height - bottom }),
      svg("text", { x: left - 6, y: 12, "text-anchor": "end" }, unit(most > 1e-8 ? most : 0)),
      svg("text", { x: left - 6, y: height - bottom, "text-anchor": "end" }, unit(0)),
      bars.map((bar, index) => {
        let y = height - bottom;
        return [
          bar.parts.map(([kind, value]) => {
            y -= scale(value);
            return value
              ? svg(
                  "rect",
                  {
                    class: kind,
                    x: left + index * step + 1,
                    y,
                    width: Math.max(step - 2, 1),
                    height: scale(value),
                  },
                  svg("title", {}, `${bar.label}: ${unit(value)}`),
                )
              : null;
          }),
          index % every
            ? null
            : svg("text", { x: left + (index + 0.5) * step, y: height - 5, "text-anchor": "middle" }, bar.label),
        ];
      }),
    ),
  );
}

const short = (text, most) => (text.length > most ? `${text.slice(0, Math.max(most - 1, 1))}…` : text);

function ticks(from, to, most) {
  const steps = [1, 2, 5, 10, 30, 60, 120, 180, 360, 720, 1440].map((minutes) => minutes * 60000);
  const step = steps.find((each) => (to - from) / each <= most) || steps.at(-1);
  const first = Math.ceil(from / step) * step;
  return Array.from(
    { length: Math.max(0, Math.floor((to - first) / step) + 1) },
    (_, index) => first + index * step,
  );
}

const clock = (at) => new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
