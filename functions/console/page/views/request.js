// A request: what became of it or why it waits, its history, and what can be done about it.

import { ApiError, at, get, post, postOnce } from "../api.js";
import { act, ask, banner, el, fill, panel } from "../dom.js";
import {
  badge,
  baseline,
  besideBefore,
  bestTrial,
  between,
  bytes,
  duration,
  figures,
  isActive,
  stateName,
  time,
  usd,
} from "../format.js";
import { table } from "../table.js";
import { driftOf } from "./drift.js";
import { explained } from "./prospect.js";
import { runsOf } from "./runs.js";

const MODEL = /model-package\/.*\/([0-9]+)$/;
const REASON_LENGTH_MAX = 200;
const CAN_BE_TRIED_AGAIN = ["FAILED", "STOPPED", "CANCELLED", "REJECTED"];

export function show(view, context) {
  const { tenant, id, mayChange, isOfService, link } = context;
  const summary = el("div", { class: "waits" });
  const reasons = el("div");
  const waiting = panel("Why it waits", reasons);
  const history = el("ol", { class: "life" });
  const runs = runsOf(context);
  const passes = passesOf();
  const drift = driftOf(context);
  const details = el("div", { class: "details" });
  const status = el("div", { role: "status" });
  const cancel = el("button", { type: "button", class: "danger", hidden: true }, "Cancel the request");
  const first = el("button", { type: "button", hidden: true }, "Expedite");
  const retry = el("button", { type: "button", hidden: true }, "Try again");
  waiting.hidden = true;
  view.append(
    panel("State", summary, el("div", { class: "buttons more" }, cancel, first, retry), status),
    waiting,
    passes.element,
    panel("History", history),
    runs.element,
    drift.element,
    panel("Details", details),
  );

  async function load() {
    const request = await get(at`tenants/${tenant}/requests/${id}`);
    const why = request.state === "QUEUED" ? await reason(tenant, id) : null;
    fill(summary, outcome(request, link));
    fill(history, steps(request));
    fill(details, facts(request, link));
    cancel.hidden = !mayChange || !isActive(request.state);
    first.hidden = !mayChange || !isOfService || request.state !== "QUEUED";
    retry.hidden = !mayChange || !CAN_BE_TRIED_AGAIN.includes(request.state);
    waiting.hidden = why === null;
    fill(reasons, why ? explained(why) : []);
    await runs.load(request);
    await drift.load(request);
    if (isOfService) await passes.load(request);
  }

  cancel.addEventListener("click", () =>
    act(cancel, status, async () => {
      const text = [
        el(
          "p",
          {},
          "If it waits, it will not start. If it runs, it is stopped; the cost so far is still charged.",
        ),
      ];
      if (!(await ask({ title: "Cancel this request?", text, action: "Cancel the request", danger: true })))
        return;
      await post(at`tenants/${tenant}/requests/${id}/cancel`);
      status.replaceChildren(banner("good", "The request is cancelled; if it runs, it ends within minutes."));
      await context.reload();
    }),
  );
  first.addEventListener("click", () =>
    act(first, status, async () => {
      const text = [
        el("p", {}, "It becomes the first of its tier, at most every fourth that starts there. No limit changes."),
      ];
      const control = el("input", { required: true, maxlength: REASON_LENGTH_MAX, size: "40" });
      const answer = await ask({
        title: "Expedite this request?",
        text,
        fields: { reason: { label: "Reason", control, hint: "Shown to operators, with your name" } },
        action: "Expedite",
        submit: (values) => post(at`service/requests/${id}/expedite`, values),
      });
      if (!answer) return;
      status.replaceChildren(
        banner("good", `It is first in tier ${answer.tier} (by ${answer.by}: ${answer.why}).`),
      );
      await context.reload();
    }),
  );
  retry.addEventListener("click", () =>
    act(retry, status, async () => {
      const { request_id: again } = await postOnce(at`tenants/${tenant}/requests/${id}/retry`);
      status.replaceChildren(
        banner(
          "good",
          "Training requested. ",
          el("a", { href: link("requests", again) }, `Request ${again.slice(0, 8)}`),
          " will appear in a few seconds.",
        ),
      );
    }),
  );
  return { load };
}

/** Return { element, load(request) }: what passes of the dispatcher have decided about a request that waits. */
function passesOf() {
  const list = table({
    key: (row) => row.at,
    empty: "No pass of the last two hours has left it waiting.",
    columns: [
      { title: "Pass", head: true, cell: (row) => time(row.at, { withSeconds: true }) },
      { title: "Decision", class: "text", cell: (row) => row.reason },
      { title: "Policy", class: "number", cell: (row) => `version ${row.policy_version}` },
    ],
  });
  const element = panel("Last decisions", list.element);
  element.hidden = true;
  async function load({ request_id: id, state }) {
    element.hidden = state !== "QUEUED";
    if (!element.hidden) list.update((await get(at`service/requests/${id}/passes`)).items);
  }
  return { element, load };
}

/** Return why a request waits; null where it has just started. */
async function reason(tenant, id) {
  try {
    return await get(at`tenants/${tenant}/requests/${id}/why`);
  } catch (error) {
    if (error instanceof ApiError && error.status === 409) return null;
    throw error;
  }
}

function outcome(request, link) {
  const { receipt } = request;
  const result = receipt.result || {};
  const model = MODEL.exec(result.model_package_arn || "");
  const now = new Date().toISOString();
  const expected =
    request.expected?.usd && isActive(request.state) ? `≈ ${usd(request.expected.usd)} expected` : "–";
  return [
    el("p", {}, badge(request.state), " ", el("strong", {}, request.data_set), ` – ${receipt.message}`),
    receipt.what_to_do ? el("p", {}, "What to do: ", receipt.what_to_do) : null,
    receipt.superseded_by
      ? el(
          "p",
          {},
          "Replaced by ",
          el(
            "a",
            { href: link("requests", receipt.superseded_by) },
            `request ${receipt.superseded_by.slice(0, 8)}`,
          ),
        )
      : null,
    (result.notes || []).map((note) => banner("", note)),
    model ? el("p", {}, el("a", { href: link("models", model[1]) }, `Model version ${model[1]}`)) : null,
    figures([
      ["Waited", duration(between(request.arrived_at, request.admitted_at || request.finished_at || now))],
      ["Ran", request.admitted_at ? duration(between(request.admitted_at, request.finished_at || now)) : "–"],
      ["Cost", result.cost_usd ? usd(result.cost_usd) : expected],
      typeof result.quality === "number"
        ? [`Quality (${result.quality_metric})`, result.quality.toFixed(3), baseline(result.baseline)]
        : null,
      result.champion ? besideBefore(result.champion) : null,
      result.tuning ? bestTrial(result.tuning) : null,
    ]),
  ];
}

function steps({ history }) {
  return history.map((change, index) => {
    const until = history[index + 1]?.at ?? (isActive(change.state) ? new Date().toISOString() : null);
    const lasted = until ? el("span", { class: "quiet" }, `for ${duration(between(change.at, until))}`) : null;
    return el("li", {}, el("strong", {}, stateName(change.state)), time(change.at, { withSeconds: true }), lasted);
  });
}

/** Return the hyperparameters that it was asked for with. */
function own(overrides) {
  const chosen = Object.entries(overrides?.hyperparameters ?? {});
  const tuning = overrides?.tuning ? [el("small", {}, `tuning with ${overrides.tuning.trials} trials`)] : [];
  return [...chosen.map(([name, value]) => el("small", {}, `${name} = ${value}`)), ...tuning];
}

function facts(request, link) {
  const { receipt } = request;
  const { object } = receipt;
  const result = receipt.result || {};
  const dropped = result.rows_dropped ? el("small", {}, `${result.rows_dropped} left out`) : null;
  const others = `${link("requests")}?data_set=${encodeURIComponent(request.data_set)}`;
  return figures([
    ["File", object.key, el("small", {}, bytes(object.size_bytes))],
    ["Asked by", receipt.asked_by?.join(", ") || receipt.cause],
    receipt.uploads > 1 ? ["Uploads", `${receipt.uploads} in one training`] : null,
    ["Tier", request.tier],
    request.algorithm ? ["Algorithm", request.algorithm, own(request.overrides)] : null,
    ["Attempts", String(receipt.attempt)],
    result.rows ? ["Rows", result.rows.toLocaleString("en-US"), dropped] : null,
    receipt.deadline
      ? [
          "Deadline",
          time(receipt.deadline.at),
          el("small", {}, { true: "met", false: "missed" }[receipt.deadline.met] ?? ""),
        ]
      : null,
    ["Data set", request.data_set, el("small", {}, el("a", { href: others }, "other requests"))],
    ["Id", el("code", {}, request.request_id)],
  ]);
}
