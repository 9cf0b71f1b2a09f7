// How values are shown: times in the browser's zone, with UTC in the tooltip.

import { el } from "./dom.js";

const WORDS = {
  QUEUED: ["Waiting", "warn"],
  ADMITTED: ["Starting", "busy"],
  RUNNING: ["Running", "busy"],
  SUCCEEDED: ["Succeeded", "good"],
  FAILED: ["Failed", "bad"],
  STOPPED: ["Stopped", ""],
  SUPERSEDED: ["Superseded", ""],
  CANCELLED: ["Cancelled", ""],
  REJECTED: ["Rejected", "bad"],
};

export const STATES = Object.keys(WORDS);
export const stateName = (state) => (WORDS[state] || [state])[0];

/** Return whether a request waits, is about to start, or runs. */
export const isActive = (state) => ["QUEUED", "ADMITTED", "RUNNING"].includes(state);

export function badge(state) {
  const [text, kind] = WORDS[state] || [state, ""];
  return el("span", { class: `badge ${kind}` }, text);
}

/** Return a time in the browser's zone, as an element; the tooltip has it in UTC. */
export function time(text, { withSeconds = false } = {}) {
  if (!text) return el("span", { class: "quiet" }, "–");
  const at = new Date(text);
  const now = new Date();
  const isToday = at.toDateString() === now.toDateString();
  const second = withSeconds ? { second: "2-digit" } : {};
  const year = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  const clock = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...second });
  const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short", ...year });
  const words = isToday ? clock : `${day}, ${clock}`;
  const utc = `${at.toISOString().replace("T", " ").slice(0, 19)} UTC`;
  return el("time", { datetime: text, title: utc, class: "nowrap" }, words);
}

/** Return by when something is expected to start; null where nothing that is expected lets it start. */
export function expectedStart(latest) {
  if (!latest) return "not known";
  return new Date(latest) <= new Date() ? "now" : ["before ", time(latest)];
}

/** Return a span of time in words, as `2 h 5 min`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor((whole % 3600) / 60);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole < 600 && whole % 60 ? ` ${whole % 60} s` : ""}`;
  if (whole < 172800) return [`${Math.floor(whole / 3600)} h`, minutes ? `${minutes} min` : ""].join(" ").trim();
  return `${Math.floor(whole / 86400)} days`;
}

export const between = (from, to) => (from && to ? (new Date(to) - new Date(from)) / 1000 : null);

/** Return an amount, which is a decimal number as text. */
export function usd(text) {
  if (text === null || text === undefined) return "not known";
  const value = Number(text);
  const digits = value === 0 || Math.abs(value) >= 1 ? 2 : 4;
  return `$${value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

export const count = (value) => Number(value).toLocaleString("en-US");

/** Return "1 request", "2 requests". */
export const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Return a list of terms with their values, which may be elements. */
export function figures(pairs) {
  return el(
    "dl",
    { class: "figures" },
    pairs.filter(Boolean).map(([name, ...value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

/** Return the day in UTC, by which the API lists what ended. */
export const today = () => new Date().toISOString().slice(0, 10);

const MONTHS = 13;

/** Return the last months, the current one first: "2026-11". */
export function lastMonths() {
  const now = new Date();
  const back = (months) =>
    new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months, 1)).toISOString().slice(0, 7);
  return Array.from({ length: MONTHS }, (_, months) => back(months));
}

export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

/** Return how a model stands beside the one before, as a figure; null for the first one. */
export function besideBefore({ gain, segment_gain: segment, not_compared: why }) {
  const title = "Beside the model before";
  if (typeof gain !== "number") return why ? [title, "not compared", el("small", {}, why)] : null;
  const worst = typeof segment === "number" ? el("small", {}, `${signed(segment)} in its worst segment`) : null;
  return [title, `${signed(gain)} on the same rows`, worst];
}

/** Return what a tuning has found, as a figure. */
export function bestTrial({ values, score, score_before: before, metric }) {
  const found = Object.entries(values).map(([name, value]) => el("small", {}, `${name} = ${value}`));
  if (typeof before === "number") found.push(el("small", {}, `${before.toFixed(3)} with the values of before`));
  return [`Best trial (${metric})`, typeof score === "number" ? score.toFixed(3) : "–", found];
}

/** Return how good a model would be that always predicts the same. */
export const baseline = (value) =>
  typeof value === "number" ? el("small", {}, `baseline ${value.toFixed(3)}`) : null;
