// A version of a model: how good it is, what answers calls, its files; approve or reject it, and try it on rows.

import { at, get, post } from "../api.js";
import { ask, el, field, fill, panel, select } from "../dom.js";
import { figures, time } from "../format.js";
import { table } from "../table.js";
import { standing } from "./models.js";

export const title = ({ id }) => `Model version ${id}`;

const REASON_LENGTH_MAX = 200;

export function show(view, context) {
  const { tenant, id, mayChange, link } = context;
  const facts = el("div", { class: "waits" });
  const actions = el("div", { class: "buttons more" });
  const problem = el("div", { role: "status" });
  const trial = el("div");
  view.append(panel("The version", facts, actions, problem), trial);
  let model = null;

  async function load({ isAsked }) {
    model = await get(at`tenants/${tenant}/models/${id}`);
    fill(
      facts,
      el("p", {}, standing(model), model.comment ? ` – ${model.comment}` : ""),
      figures([
        ["Data set", model.data_set],
        [
          "Quality",
          model.quality === null ? "not known any more" : `${model.quality_metric} ${model.quality.toFixed(3)}`,
          model.baseline === null
            ? ""
            : el("small", {}, `${model.baseline.toFixed(3)} without looking at the rows`),
        ],
        ["Algorithm", model.algorithm || "not known any more"],
        ["Rows", model.rows === null ? "–" : model.rows.toLocaleString("en-US")],
        ["Registered", time(model.created_at)],
        [
          "Training",
          el("a", { href: link("requests", model.request_id) }, `request ${model.request_id.slice(0, 8)}`),
        ],
        model.deployment
          ? [
              "Deployment",
              model.deployment,
              model.deployment_reason ? el("small", {}, model.deployment_reason) : "",
            ]
          : null,
      ]),
    );
    fill(
      actions,
      el("button", { type: "button", data: { does: "files" } }, "Get the files"),
      mayChange && model.status !== "approved"
        ? el("button", { type: "button", data: { does: "APPROVE" } }, "Approve")
        : null,
      mayChange && model.status !== "rejected"
        ? el("button", { type: "button", class: "danger", data: { does: "REJECT" } }, "Reject")
        : null,
    );
    if (mayChange && !trial.firstChild) trial.append(rows(tenant, model));
  }

  actions.addEventListener("click", async (event) => {
    const does = event.target.dataset?.does;
    if (!does) return;
    try {
      if (does === "files") await files();
      else await decide(does);
    } catch (error) {
      problem.replaceChildren(el("p", { class: "banner bad" }, error.message));
    }
  });

  async function files() {
    const { model: archive, card, expires_at: until } = await get(at`tenants/${tenant}/models/${id}/files`);
    problem.replaceChildren(
      el(
        "p",
        { class: "more" },
        el("a", { href: archive, rel: "noreferrer" }, "Model archive"),
        ", ",
        el("a", { href: card, rel: "noreferrer", target: "_blank" }, "model card"),
        "; until ",
        time(until),
      ),
    );
  }

  async function decide(does) {
    const verb = does === "APPROVE" ? "Approve" : "Reject";
    const reason = el("input", { maxlength: REASON_LENGTH_MAX, size: "40" });
    const answer = await ask({
      title: `${verb} version ${id} of ${model.data_set}?`,
      action: verb,
      danger: does === "REJECT",
      text: [
        el(
          "p",
          {},
          does === "APPROVE"
            ? "An approved version is deployed where the service deploys models."
            : "A rejected version is not deployed.",
        ),
      ],
      fields: { reason: { label: "Reason", control: reason, hint: "Optional; kept with the version" } },
    });
    if (!answer) return;
    await post(at`tenants/${tenant}/models/${id}/decision`, { decision: DECISIONS[does], reason: answer.reason });
    problem.replaceChildren(
      el("p", { class: "banner good" }, `Version ${id} is ${does === "APPROVE" ? "approved" : "rejected"}.`),
    );
    await context.reload();
  }
  return load;
}

const DECISIONS = { APPROVE: "approve", REJECT: "reject" };

function rows(tenant, model) {
  const text = el("textarea", { rows: "5", class: "code", spellcheck: "false" });
  const kind = select(
    [
      ["text/csv", "CSV with headers"],
      ["application/jsonlines", "JSON lines"],
    ],
    "text/csv",
  );
  const where = select(
    [
      ["production", "production"],
      ["test", "test"],
    ],
    "production",
  );
  const answer = el("div", { role: "status" });
  const button = el("button", { type: "button", onclick: predict }, "Predict");

  async function predict() {
    button.disabled = true;
    answer.replaceChildren(el("p", { class: "quiet" }, "Predicting…"));
    try {
      const body = { rows: text.value, content_type: kind.value, environment: where.value };
      const result = await post(at`tenants/${tenant}/data-sets/${model.data_set}/predictions`, body);
      answer.replaceChildren(
        el(
          "p",
          {},
          `By version ${result.version}${result.milliseconds === null ? "" : ` in ${result.milliseconds} ms`}`,
        ),
        predictions(result),
      );
    } catch (error) {
      answer.replaceChildren(el("p", { class: "banner bad" }, error.message));
    } finally {
      button.disabled = false;
    }
  }

  return panel(
    `Try ${model.data_set} on rows`,
    el("p", { class: "quiet" }, "The version that is live answers, which need not be this one."),
    field("Rows", text, "With the columns of the training data, but without the one to be predicted"),
    el("div", { class: "fields more" }, field("Format", kind), field("Environment", where), button),
    answer,
  );
}

function predictions({ predictions: values, classes, probabilities, output }) {
  if (!values) return el("p", {}, output ? `The answer will be written to ${output}` : "There is no answer.");
  const list = table({
    key: (row) => String(row.number),
    columns: [
      { title: "Row", head: true, cell: (row) => String(row.number) },
      { title: "Prediction", cell: (row) => String(row.value) },
      ...(probabilities ? [{ title: "Probability", class: "number", cell: (row) => row.probability }] : []),
    ],
  });
  list.update(
    values.map((value, index) => ({
      number: index + 1,
      value,
      probability: probabilities ? Math.max(...probabilities[index]).toFixed(3) : "",
    })),
  );
  return list.element;
}
