// A request: what became of it or why it waits, its life so far, and what can be done about it.

import { ApiError, at, get, newKey, post } from "../api.js";
import { ask, el, fill, panel } from "../dom.js";
import { badge, between, bytes, duration, figures, isActive, stateName, time, usd } from "../format.js";

export const title = ({ id }) => `Request ${id.slice(0, 8)}`;

const MODEL = /model-package\/.*\/([0-9]+)$/;

export function show(view, context) {
  const { tenant, id, mayChange, link } = context;
  const summary = el("div", { class: "waits" });
  const waiting = el("div");
  const life = el("ol", { class: "life" });
  const details = el("div");
  const actions = el("div", { class: "buttons" });
  view.append(
    panel("What became of it", summary, actions),
    waiting,
    panel("Its life so far", life),
    panel("Details", details),
  );

  async function load() {
    const request = await get(at`tenants/${tenant}/requests/${id}`);
    showSummary(request);
    fill(life, steps(request));
    fill(details, facts(request, link));
    showActions(request);
    fill(waiting, request.state === "QUEUED" ? await why(request) : []);
  }

  function showSummary(request) {
    const { receipt } = request;
    const result = receipt.result || {};
    const model = MODEL.exec(result.model_package_arn || "");
    fill(
      summary,
      el("p", {}, badge(request.state), " ", el("strong", {}, request.data_set), ` – ${receipt.message}`),
      receipt.what_to_do ? el("p", {}, "What to do: ", receipt.what_to_do) : null,
      receipt.superseded_by
        ? el(
            "p",
            {},
            "Trained instead: ",
            el("a", { href: link("requests", receipt.superseded_by) }, receipt.superseded_by.slice(0, 8)),
          )
        : null,
      (result.notes || []).map((note) => el("p", { class: "banner" }, note)),
      model ? el("p", {}, el("a", { href: link("models", model[1]) }, `Model version ${model[1]}`)) : null,
      figures([
        [
          "Waited",
          duration(
            between(request.arrived_at, request.admitted_at || request.finished_at || new Date().toISOString()),
          ),
        ],
        [
          "Ran",
          request.admitted_at
            ? duration(between(request.admitted_at, request.finished_at || new Date().toISOString()))
            : "–",
        ],
        [
          "Cost",
          result.cost_usd
            ? usd(result.cost_usd)
            : request.expected?.usd && isActive(request.state)
              ? `≈ ${usd(request.expected.usd)} expected`
              : "–",
        ],
        typeof result.quality === "number"
          ? [
              result.quality_metric,
              result.quality.toFixed(3),
              typeof result.baseline === "number"
                ? el("small", {}, `${result.baseline.toFixed(3)} without looking at the rows`)
                : "",
            ]
          : null,
      ]),
    );
  }

  async function why(request) {
    try {
      return [
        panel("Why it waits", explained(await get(at`tenants/${tenant}/requests/${request.request_id}/why`))),
      ];
    } catch (error) {
      if (error instanceof ApiError && error.status === 409) return []; // it has just started
      throw error;
    }
  }

  function showActions(request) {
    if (!mayChange) return;
    const canRetry = ["FAILED", "STOPPED", "CANCELLED", "REJECTED"].includes(request.state);
    fill(
      actions,
      isActive(request.state)
        ? el(
            "button",
            { type: "button", class: "danger", data: { does: "cancel" } },
            request.state === "QUEUED" ? "Cancel" : "Stop",
          )
        : null,
      canRetry ? el("button", { type: "button", data: { does: "retry" } }, "Try again") : null,
    );
  }

  actions.addEventListener("click", async (event) => {
    const does = event.target.dataset?.does;
    try {
      if (
        does === "cancel" &&
        (await ask({
          title: "Cancel this request?",
          action: "Cancel the request",
          danger: true,
          text: [
            el(
              "p",
              {},
              "If it waits, it does not start. If it runs, it is stopped, and costs what it has cost until then.",
            ),
          ],
        }))
      ) {
        await post(at`tenants/${tenant}/requests/${id}/cancel`);
        await context.reload();
      } else if (does === "retry") {
        const { request_id: again } = await post(at`tenants/${tenant}/requests/${id}/retry`, undefined, {
          "Idempotency-Key": newKey(),
        });
        actions.replaceChildren(
          el(
            "p",
            { class: "banner good", role: "status" },
            "Asked for: ",
            el("a", { href: link("requests", again) }, `request ${again.slice(0, 8)}`),
            " is there within seconds.",
          ),
        );
      }
    } catch (error) {
      actions.append(el("p", { class: "banner bad", role: "alert" }, error.message));
    }
  });
  return load;
}

/** Return the panels' content for what a waiting request can expect; of a request, or of a quote. */
export function explained({ waiting, expected, budget }) {
  const { earliest, latest } = waiting.expected_start;
  return [
    el("p", {}, waiting.reason),
    figures([
      [
        "Place in its tier",
        waiting.position === null ? "not known" : String(waiting.position),
        el("small", {}, "1 starts next"),
      ],
      [
        "Expected start",
        latest ? time(latest) : "not foreseeable",
        earliest && latest && earliest !== latest ? el("small", {}, "at the earliest ", time(earliest)) : "",
      ],
      ["Expected end", time(waiting.expected_end), el("small", {}, "nine of ten end before")],
      [
        "Expected cost",
        expected ? usd(expected.usd) : "not known",
        expected?.usd_p90 ? el("small", {}, `nine of ten cost less than ${usd(expected.usd_p90)}`) : "",
      ],
      budget
        ? [
            `Budget of ${budget.month}`,
            `${usd(budget.spent_usd)} of ${usd(budget.limit_usd)}`,
            el("small", {}, `${usd(budget.reserved_usd)} reserved by runs`),
          ]
        : null,
    ]),
  ];
}

function steps(request) {
  const { history } = request;
  return history.map((change, index) => {
    const next = history[index + 1];
    const until = next ? next.at : isActive(change.state) ? new Date().toISOString() : null;
    return el(
      "li",
      {},
      el("strong", {}, stateName(change.state)),
      time(change.at),
      until ? el("span", { class: "quiet" }, `for ${duration(between(change.at, until))}`) : null,
    );
  });
}

function facts(request, link) {
  const { receipt } = request;
  const { object } = receipt;
  const result = receipt.result || {};
  return figures([
    ["File", object.key, el("small", {}, bytes(object.size_bytes))],
    ["Cause", receipt.cause],
    ["Tier", request.tier],
    ["Attempt", String(receipt.attempt)],
    result.rows
      ? [
          "Rows",
          result.rows.toLocaleString("en-US"),
          result.rows_dropped ? el("small", {}, `${result.rows_dropped} left out`) : "",
        ]
      : null,
    receipt.deadline
      ? [
          "Deadline",
          time(receipt.deadline.at),
          el("small", {}, receipt.deadline.met === null ? "" : receipt.deadline.met ? "met" : "missed"),
        ]
      : null,
    [
      "All of this data set",
      el("a", { href: `${link("requests")}?data_set=${encodeURIComponent(request.data_set)}` }, "requests"),
    ],
    ["Id", el("code", {}, request.request_id)],
  ]);
}
