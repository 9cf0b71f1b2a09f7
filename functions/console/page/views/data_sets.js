// Data sets: upload a file with its price and place known before, or train again on what is there.

import { at, get, post, postOnce } from "../api.js";
import { act, ask, banner, el, field, panel, select } from "../dom.js";
import { baseline, bytes, count, many, time, usd } from "../format.js";
import { table } from "../table.js";
import { upload } from "../upload.js";
import { explained } from "./prospect.js";

const TRIALS = ["5", "10", "20"];
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const RULE = "Letters, digits, dots, hyphens and underscores: up to 63, the first a letter or a digit.";
const HEADER_BYTES = 65536;
const SECONDS = 30;
const LOOKS_MAX = 30;

export function show(view, context) {
  const { tenant, mayChange, link } = context;
  const names = el("datalist", { id: "data-sets" });
  const status = el("div", { role: "status" });
  const settings = { own: {}, of: (name) => settings.own[name] ?? settings.tenant, tenant: null };
  const requests = (name) => `${link("requests")}?data_set=${encodeURIComponent(name)}`;
  const train = {
    title: "Train",
    cell: (row) =>
      el(
        "button",
        { type: "button", data: { train: row.name }, "aria-label": `Train ${row.name} again` },
        "Train again",
      ),
  };
  const change = {
    title: "Settings",
    cell: (row) =>
      el(
        "button",
        { type: "button", data: { change: row.name }, "aria-label": `Settings of ${row.name}` },
        "Change",
      ),
  };
  const list = table({
    caption: `Data sets of ${tenant}`,
    key: (row) => row.name,
    empty: "There are no data sets yet. Upload a file: its data set is created with it.",
    columns: [
      { title: "Data set", head: true, cell: (row) => row.name },
      { title: "Predicted column", cell: (row) => settings.of(row.name)?.target ?? "–" },
      { title: "Algorithm", cell: (row) => settings.of(row.name)?.algorithm ?? "–" },
      {
        title: "Requests",
        cell: (row) => el("a", { href: requests(row.name), "aria-label": `Requests of ${row.name}` }, "requests"),
      },
      ...(mayChange ? [train, change] : []),
    ],
  });
  list.element.addEventListener("click", ({ target }) => {
    const { train: name, change: changed } = target.dataset ?? {};
    if (name) act(target, status, () => trained(name));
    if (changed) act(target, status, () => configured(changed));
  });
  view.append(
    names,
    mayChange ? uploader(context, settings, requests) : "",
    el("div", { class: "notice" }, status),
    el("div", { class: "panel" }, list.element),
  );

  const triggers = triggersOf(link);
  const algorithms = algorithmsOf(tenant);
  view.append(panel("Trained by itself", triggers.element), panel("Algorithms", algorithms.element));

  async function trained(name) {
    const present = settings.of(name) ?? {};
    const data = present.train_on === "whole-prefix" ? "all files that were uploaded" : "the newest file";
    const text = [el("p", {}, `Trains on ${data}, at the usual cost.`)];
    const usual = present.algorithm ?? "its own";
    const fields = {
      algorithm: {
        label: "Algorithm",
        control: select([["", `Default (${usual})`], ...algorithms.names().map((each) => [each, each])], ""),
        hint: "Applies to this training only",
      },
      hyperparameters: {
        label: "Hyperparameters",
        control: el("input", { size: "40", autocomplete: "off", spellcheck: "false" }),
        hint: "Applies to this training only: max_iter=200, learning_rate=0.05; others keep their defaults",
      },
      trials: {
        label: "Tuning",
        control: select(
          [["", "Train once"], ...TRIALS.map((trials) => [trials, `Search hyperparameters: ${trials} trainings`])],
          "",
        ),
        hint: "One after the other, within what one training may take and cost; the best model is registered",
      },
      force: {
        label: "If nothing has changed",
        control: select(
          [
            ["", "Do not train"],
            ["yes", "Train all the same"],
          ],
          "",
        ),
        hint: "Since the last training, neither the data nor the settings",
      },
    };
    const submit = ({ force, ...chosen }) =>
      postOnce(at`tenants/${tenant}/requests`, { data_set: name, force: force === "yes", ...overridden(chosen) });
    const asked = await ask({ title: `Train ${name} again?`, action: "Train", text, fields, submit });
    if (!asked) return;
    const { request_id: id } = asked;
    status.replaceChildren(
      banner(
        "good",
        "Training requested. ",
        el("a", { href: link("requests", id) }, `Request ${id.slice(0, 8)}`),
        " will appear in a few seconds.",
      ),
    );
  }

  async function configured(name) {
    const present = settings.of(name) ?? {};
    const text = [el("p", {}, "They apply to all further trainings of this data set, and to those that wait.")];
    const fields = settingsFields(present, algorithms.names());
    const submit = async (chosen) => {
      const changes = changesOf(present, chosen);
      if (!Object.keys(changes).length) return null;
      return postOnce(at`tenants/${tenant}/settings`, { data_set: name, changes });
    };
    const begun = await ask({ title: `Settings of ${name}`, action: "Change", text, fields, submit });
    if (!begun) return;
    const { change_id: id } = begun;
    status.replaceChildren(banner("", `The settings of ${name} are being changed…`));
    const { state, reason } = await ended(tenant, id);
    if (state === "FAILED") throw new Error(`The settings of ${name} were not changed: ${reason}`);
    const words =
      state === "DONE" ? `The settings of ${name} are changed.` : `The settings of ${name} will be changed.`;
    status.replaceChildren(banner("good", words));
    await context.reload();
  }

  async function load({ isAsked }) {
    const [{ items }, described, retraining] = await Promise.all([
      get(at`tenants/${tenant}/data-sets`),
      get(at`tenants/${tenant}`),
      get(at`tenants/${tenant}/retraining`),
    ]);
    triggers.update(rowsOf(retraining), { isAsked });
    settings.tenant = described.settings;
    settings.own = Object.fromEntries(
      Object.entries(described.data_sets).map(([name, own]) => [name, { ...described.settings, ...own }]),
    );
    list.update(items, { isAsked });
    // They change with the policy, which is seldom.
    if (!algorithms.hasRows) await algorithms.load();
    names.replaceChildren(...items.map((row) => el("option", { value: row.name })));
  }
  return { load, seconds: SECONDS };
}

/** Return a table of what asks data sets to train by themselves: when next, and what came of it last. */
function triggersOf(link) {
  return table({
    caption: "What asks data sets to train by themselves",
    key: (row) => `${row.data_set} ${row.kind}`,
    empty: "Nothing asks for trainings by itself. Settings of a data set can say when it trains again.",
    columns: [
      { title: "Data set", head: true, cell: (row) => row.data_set ?? "all others" },
      {
        title: "Schedule",
        cell: (row) => [row.schedule ?? "–", row.kind === "transform" ? el("small", {}, "predictions") : null],
      },
      { title: "Due next", cell: (row) => (row.due_at ? time(row.due_at) : row.schedule ? "by its rate" : "–") },
      { title: "Asked last", cell: (row) => (row.at ? [row.trigger, el("small", {}, time(row.at))] : "–") },
      { title: "Outcome", cell: (row) => outcomeOf(row, link) },
    ],
  });
}

function outcomeOf({ at: asked, request_id: id, left_out_because: reason, left_out: times }, link) {
  if (!asked) return "–";
  if (id) return el("a", { href: link("requests", id) }, `request ${id.slice(0, 8)}`);
  return [`not trained: ${reason}`, times > 1 ? el("small", {}, `${times} times in a row`) : null];
}

/** Return a row for each schedule, and one for each other data set that something asked to train. */
function rowsOf({ schedules, triggers }) {
  const of = new Map(triggers.map((each) => [each.data_set, each]));
  const planned = schedules.map((each) => ({ ...(each.kind === "training" && of.get(each.data_set)), ...each }));
  const named = new Set(planned.filter((each) => each.kind === "training").map((each) => each.data_set));
  return [...planned, ...triggers.filter((each) => !named.has(each.data_set))];
}

/** Return the fields of a dialog with the settings of a data set. */
function settingsFields(present, algorithms) {
  const values = Object.entries(present.hyperparameters ?? {}).map(([name, value]) => `${name}=${value}`);
  const rules = Object.entries(present.retraining ?? {}).map(
    ([name, value]) => `${name}=${[value].flat().join("|")}`,
  );
  const text = (value) => el("input", { value, size: "40", autocomplete: "off", spellcheck: "false" });
  const choices = [...new Set([...algorithms, present.algorithm].filter(Boolean))];
  return {
    target: { label: "Predicted column", control: text(present.target ?? "") },
    algorithm: {
      label: "Algorithm",
      control: select(
        choices.map((each) => [each, each]),
        present.algorithm,
      ),
      hint: "Another one discards the hyperparameters of the present one, except those given here",
    },
    hyperparameters: {
      label: "Hyperparameters",
      control: text(values.join(", ")),
      hint: "name=value, separated by commas; those that are not given have the algorithm's own values",
    },
    ready_by: {
      label: "Deadline",
      control: text(present.ready_by ?? ""),
      hint: "When the model of an upload is to be ready, such as 06:00 Europe/Zurich; empty for no deadline",
    },
    schedule: {
      label: "Trained again",
      control: text(present.schedule ?? ""),
      hint: "rate(1 day), or cron(0 3 * * ? *) Europe/Zurich; empty for the tenant's own schedule, if it has one",
    },
    retraining: {
      label: "When it trains",
      control: text(rules.join(", ")),
      hint: "name=value, separated by commas: files=10, interval_minutes=60; empty for each upload",
    },
    priority: {
      label: "Priority",
      control: el("input", {
        type: "number",
        min: "0",
        max: "9",
        required: true,
        value: String(present.priority ?? 0),
      }),
      hint: "Among your own requests; 9 is first",
    },
  };
}

/** Return the rules of a data set; names of columns are texts, also those that look like numbers. */
function rulesOf(given) {
  const rules = Object.fromEntries(given);
  return rules.critical === undefined ? rules : { ...rules, critical: String(rules.critical).split("|") };
}

/** Return those settings that differ from the present ones. */
function changesOf(present, chosen) {
  const next = {
    target: chosen.target.trim(),
    algorithm: chosen.algorithm,
    hyperparameters: Object.fromEntries(pairs(chosen.hyperparameters)),
    ready_by: chosen.ready_by.trim(),
    schedule: chosen.schedule.trim(),
    retraining: rulesOf(pairs(chosen.retraining)),
    priority: Number(chosen.priority),
  };
  const before = { hyperparameters: {}, ready_by: "", schedule: "", retraining: {}, priority: 0, ...present };
  const differs = ([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name]);
  return Object.fromEntries(Object.entries(next).filter(differs));
}

/** Return how a change stands once it has ended, or after a minute. */
async function ended(tenant, id) {
  for (let looks = 0; ; looks += 1) {
    const change = await get(at`tenants/${tenant}/changes/${id}`);
    if (change.state !== "RUNNING" || looks === LOOKS_MAX) return change;
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

/** Return what a single training is to have, from what was typed; nothing where that is nothing. */
function overridden({ algorithm, hyperparameters, trials }) {
  const given = pairs(hyperparameters);
  if (!algorithm && !given.length && !trials) return {};
  const overrides = { algorithm: algorithm || null, hyperparameters: Object.fromEntries(given) };
  return { overrides: trials ? { ...overrides, tuning: { trials: Number(trials) } } : overrides };
}

/** Return the hyperparameters that were typed as name=value, separated by commas. */
function pairs(text) {
  const given = text
    .split(",")
    .map((each) => each.trim())
    .filter(Boolean)
    .map(pair);
  const twice = given.find(([name], index) => given.findIndex(([other]) => other === name) !== index);
  if (twice) throw new Error(`${twice[0]} is given twice.`);
  return given;
}

function pair(text) {
  const [, name, value] = /^([^=\s]+)\s*=\s*(.+)$/.exec(text) ?? [];
  if (!name) throw new Error(`“${text}” is not name=value. Separate them by commas.`);
  if (/^-?[0-9.]+(e-?[0-9]+)?$/i.test(value) && Number.isFinite(Number(value))) return [name, Number(value)];
  return [name, { true: true, false: false }[value] ?? value];
}

/** Return a table of the algorithms that data sets may have, with what an hour of training costs. */
function algorithmsOf(tenant) {
  const sizes = (row) =>
    row.instances.map((each) =>
      el("div", {}, `up to ${count(each.data_mb_max)} MB: ${usd(each.training_usd_per_hour)}`),
    );
  const examples = ({ typical_quality: typical }) =>
    typical.length
      ? el(
          "details",
          {},
          el("summary", {}, many(typical.length, "example")),
          typical.map((each) =>
            el("div", {}, `${each.data}: ${each.metric} ${each.quality}`, " ", baseline(each.baseline)),
          ),
        )
      : "–";
  const list = table({
    key: (row) => row.name,
    empty: "There are no algorithms.",
    columns: [
      { title: "Algorithm", head: true, cell: (row) => row.name },
      { title: "Description", class: "text", cell: (row) => row.description || "–" },
      {
        title: "Hyperparameters",
        class: "text",
        cell: (row) =>
          row.hyperparameters.map((each) =>
            el("div", {}, `${each.name} = ${each.default ?? "its own"}: ${each.allowed}`),
          ),
      },
      { title: "Typical quality", class: "text", cell: examples },
      { title: "An hour of training", cell: sizes },
    ],
  });
  const shown = { element: list.element, hasRows: false, load, names: () => names };
  let names = [];
  async function load() {
    const { items } = await get(at`tenants/${tenant}/algorithms`);
    list.update(items);
    names = items.map((row) => row.name);
    shown.hasRows = true;
  }
  return shown;
}

/** Return the panel in which a file is chosen, quoted and uploaded. */
function uploader({ tenant }, settings, requests) {
  const name = el("input", {
    list: "data-sets",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    size: "20",
  });
  const file = el("input", { type: "file" });
  const drop = el("div", { class: "drop" }, el("p", {}, "Drop a file here, or choose one:"), field("File", file));
  const quote = el("div");
  const status = el("div", { role: "status" });
  const start = el("button", { type: "button", class: "main", disabled: true, onclick: send }, "Upload");
  let isTyped = false,
    asked = 0;

  async function showQuote() {
    const [chosen, number] = [file.files[0], ++asked];
    start.disabled = true;
    quote.replaceChildren();
    status.replaceChildren();
    if (!chosen) return;
    if (!NAME.test(name.value.trim()))
      return status.replaceChildren(banner("", `Enter the name of a data set. ${RULE}`));
    status.replaceChildren(el("p", { class: "quiet" }, "Getting a quote…"));
    try {
      const body = { data_set: name.value.trim(), name: chosen.name, size_bytes: chosen.size };
      const [answer, missing] = await Promise.all([
        post(at`tenants/${tenant}/quotes`, body),
        missingColumn(chosen, settings.of(body.data_set)?.target),
      ]);
      if (number !== asked) return;
      status.replaceChildren(el("p", {}, `${chosen.name}, ${bytes(chosen.size)}: what to expect`));
      quote.replaceChildren(...explained(answer), ...warnings(answer, missing));
      start.disabled = false;
    } catch (error) {
      if (number === asked) status.replaceChildren(banner("bad", error.message));
    }
  }

  function send() {
    const [chosen, data_set] = [file.files[0], name.value.trim()];
    upload(tenant, data_set, chosen, requests(data_set));
    file.value = name.value = "";
    isTyped = false;
    showQuote();
    file.focus();
  }

  file.addEventListener("change", () => {
    if (!isTyped && file.files[0]) name.value = suggested(file.files[0].name);
    showQuote();
  });
  name.addEventListener("change", () => {
    isTyped = name.value !== "";
    showQuote();
  });
  dropped(drop, (files) => {
    file.files = files;
    file.dispatchEvent(new Event("change"));
  });
  return panel(
    "Upload a file",
    drop,
    el("div", { class: "fields more" }, field("Data set", name, "An existing one, or a new name")),
    status,
    quote,
    el("div", { class: "buttons" }, start),
  );
}

function dropped(area, choose) {
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files);
    });
  }
}

const suggested = (file) =>
  file
    .replace(/\.[^.]*$/, "")
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+|-+$/g, "")
    .slice(0, 63);

/** Return the column that is to be predicted, if the first line of a CSV file does not have it. */
async function missingColumn(file, target) {
  if (!target || !/\.csv$/i.test(file.name)) return null;
  const [header, ...rest] = (await file.slice(0, HEADER_BYTES).text()).split(/\r?\n/, 2);
  // Of a longer line, or one with separators in quotes, nothing can be said here.
  if (!rest.length || /"[^"]*[,;\t|][^"]*"/.test(header)) return null;
  const columns = header
    .replace(/^\ufeff/, "")
    .split(/[,;\t|]/)
    .map((each) => each.trim().replace(/^"|"$/g, ""));
  return columns.includes(target) ? null : target;
}

function warnings(answer, missing) {
  const replaced = answer.replaces
    ? [banner("", `This would replace the waiting request ${answer.replaces.slice(0, 8)}, of the same data set.`)]
    : [];
  return missing
    ? [
        ...replaced,
        banner("bad", `The file has no column “${missing}”, which is to be predicted: the training would fail.`),
      ]
    : replaced;
}
