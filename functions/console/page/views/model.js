// A version of a model: how good it is, what answers calls, its files; approve or reject it, and try it on rows.

import { at, get, post } from "../api.js";
import { act, ask, banner, el, field, fill, panel, select } from "../dom.js";
import { baseline, besideBefore, figures, time } from "../format.js";
import { table } from "../table.js";
import { standing } from "./models.js";

const REASON_LENGTH_MAX = 200;
const CONSEQUENCES = {
  approve: "An approved version is deployed, where the service deploys models, and answers calls after its tests.",
  reject: "A rejected version will not be deployed. One that is live answers calls until another one replaces it.",
};
const DONE = {
  approve: "approved. Where models are deployed, it answers calls within minutes",
  reject: "rejected",
};

export function show(view, context) {
  const { tenant, id, mayChange, link } = context;
  const facts = el("div", { class: "waits" });
  const status = el("div", { role: "status" });
  const trial = el("div");
  const files = el("button", { type: "button" }, "Get the files");
  const approve = el("button", { type: "button", hidden: true }, "Approve");
  const reject = el("button", { type: "button", class: "danger", hidden: true }, "Reject");
  let model = null;
  view.append(panel("State", facts, el("div", { class: "buttons more" }, files, approve, reject), status), trial);

  async function load() {
    model = await get(at`tenants/${tenant}/models/${id}`);
    fill(facts, described(model, link));
    approve.hidden = !mayChange || model.status === "approved";
    reject.hidden = !mayChange || model.status === "rejected";
    if (mayChange && !trial.firstChild) trial.append(rows(tenant, model));
  }

  async function decide(decision) {
    const verb = { approve: "Approve", reject: "Reject" }[decision];
    const control = el("input", { maxlength: REASON_LENGTH_MAX, size: "40" });
    const fields = { reason: { label: "Reason", control, hint: "Optional; kept with the version" } };
    const title = `${verb} version ${id} of ${model.data_set}?`;
    const answer = await ask({
      title,
      action: verb,
      danger: decision === "reject",
      text: [el("p", {}, CONSEQUENCES[decision])],
      fields,
    });
    if (!answer) return;
    await post(at`tenants/${tenant}/models/${id}/decision`, { decision, reason: answer.reason });
    status.replaceChildren(banner("good", `Version ${id} is ${DONE[decision]}.`));
    await context.reload();
  }

  files.addEventListener("click", () =>
    act(files, status, async () =>
      status.replaceChildren(links(await get(at`tenants/${tenant}/models/${id}/files`))),
    ),
  );
  approve.addEventListener("click", () => act(approve, status, () => decide("approve")));
  reject.addEventListener("click", () => act(reject, status, () => decide("reject")));
  return { load };
}

function described(model, link) {
  return [
    el("p", {}, standing(model), model.comment ? ` – ${model.comment}` : null),
    figures([
      ["Data set", model.data_set],
      model.quality === null
        ? ["Quality", "no longer known"]
        : [`Quality (${model.quality_metric})`, model.quality.toFixed(3), baseline(model.baseline)],
      besideBefore(model),
      ["Algorithm", model.algorithm || "no longer known"],
      ["Rows", model.rows === null ? "–" : model.rows.toLocaleString("en-US")],
      ["Registered", time(model.created_at)],
      [
        "Training",
        el("a", { href: link("requests", model.request_id) }, `request ${model.request_id.slice(0, 8)}`),
      ],
      model.deployment
        ? [
            "Deployment",
            model.deployment.toLowerCase().replaceAll("_", " "),
            model.deployment_reason ? el("small", {}, model.deployment_reason) : null,
          ]
        : null,
    ]),
  ];
}

function links({ model, card, expires_at: until }) {
  const file = (href, text) =>
    el("a", { href: /^https?:/.test(href) ? href : null, rel: "noreferrer", target: "_blank" }, text);
  return el(
    "p",
    { class: "more" },
    file(model, "Model archive"),
    ", ",
    file(card, "model card"),
    "; the links expire at ",
    time(until),
  );
}

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
  const status = el("div", { role: "status" });
  const answer = el("div");
  const button = el("button", { type: "button" }, "Predict");
  button.addEventListener("click", () =>
    act(button, status, async () => {
      answer.replaceChildren();
      if (!text.value.trim()) throw new Error("Enter rows to predict.");
      const body = { rows: text.value, content_type: kind.value, environment: where.value };
      const result = await post(at`tenants/${tenant}/data-sets/${model.data_set}/predictions`, body);
      const took = typeof result.milliseconds === "number" ? ` in ${result.milliseconds} ms` : "";
      status.replaceChildren(banner("good", `Answered by version ${result.version}${took}.`));
      answer.replaceChildren(predictions(result));
    }),
  );
  return panel(
    `Predict rows of ${model.data_set}`,
    el("p", { class: "quiet" }, "The version that is live answers: it may be another one than this."),
    field("Rows", text, "With the columns of the training data, without the one to be predicted"),
    el(
      "div",
      { class: "fields more" },
      field("Format", kind),
      field("Environment", where, "test: a version that is not live yet"),
      button,
    ),
    status,
    answer,
  );
}

function predictions({ predictions: values, probabilities, output }) {
  if (!values) return el("p", {}, output ? `The answer will be written to ${output}` : "There is no answer.");
  const probable = { title: "Probability", class: "number", cell: (row) => row.probability };
  const list = table({
    caption: "Predictions, in the order of the rows",
    key: (row) => String(row.number),
    columns: [
      { title: "Row", head: true, cell: (row) => String(row.number) },
      { title: "Prediction", cell: (row) => String(row.value) },
      ...(probabilities ? [probable] : []),
    ],
  });
  const likely = (index) => (probabilities ? Math.max(...probabilities[index]).toFixed(3) : "");
  list.update(values.map((value, index) => ({ number: index + 1, value, probability: likely(index) })));
  return list.element;
}
