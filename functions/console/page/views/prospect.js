// What a waiting request can expect, or what an upload could.

import { el } from "../dom.js";
import { expectedStart, figures, time, usd } from "../format.js";

/** Return what a waiting request can expect; of a request, or of a quote. */
export function explained({ waiting, expected, budget }) {
  const { earliest, latest } = waiting.expected_start;
  const soonest =
    earliest && new Date(earliest) > new Date() && earliest !== latest
      ? el("small", {}, "not before ", time(earliest))
      : null;
  return [
    el("p", {}, waiting.reason),
    figures([
      [
        "Place in its tier",
        waiting.position === null ? "not known" : String(waiting.position),
        waiting.position ? el("small", {}, "1 starts next") : null,
      ],
      ["Expected start", expectedStart(latest), soonest],
      [
        "Expected end",
        waiting.expected_end ? ["before ", time(waiting.expected_end)] : "not known",
        waiting.expected_end ? el("small", {}, "90 % end before then") : null,
      ],
      [
        "Expected cost",
        expected ? usd(expected.usd) : "not known",
        expected?.usd_p90
          ? el("small", {}, `90 % of such runs cost less than ${usd(expected.usd_p90)}`, basis(expected))
          : null,
      ],
      budget
        ? [
            `Budget of ${budget.month}`,
            `${usd(budget.spent_usd)} of ${usd(budget.limit_usd)}`,
            el("small", {}, `${usd(budget.reserved_usd)} reserved for running requests`),
          ]
        : null,
    ]),
  ];
}

const basis = ({ basis: name, runs }) =>
  name === "history" ? `, from ${runs} earlier runs` : ", from size and tier: too few similar runs so far";
