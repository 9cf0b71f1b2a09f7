// Waves: another version of an algorithm reaches the tenants in stages. Begins them, follows them and steers them.

import { at, get, post } from "../api.js";
import { act, ask, banner, el, field, panel } from "../dom.js";
import { count, many, signed, time } from "../format.js";
import { table } from "../table.js";

const SHOWN = 20;
const SECONDS = 20;
const REASON_LENGTH_MAX = 300;
const NAMES_SHOWN = 5;

const STATES = {
  RUNNING: "running",
  PAUSED: "paused",
  GOING_BACK: "going back",
  ROLLED_BACK: "rolled back",
  DONE: "done",
};

export function show(view, { linkOf, mayChange, reload, query, setQuery }) {
  const status = el("div", { role: "status" });
  const detail = el("div");
  const read = panel("Tenants of the wave", detail);
  read.hidden = true;
  const list = listOf(mayChange);
  const members = membersOf(linkOf);
  let shown = query.wave ?? "";

  list.element.addEventListener("click", ({ target }) => {
    const { does, wave } = target.dataset ?? {};
    if (does) act(target, status, () => (does === "show" ? choose(wave) : change(does, wave)));
  });
  if (mayChange) view.append(panel("Begin a wave", beginning(status, reload)));
  view.append(panel("Waves", list.element, el("div", { class: "notice" }, status)), read);

  async function choose(wave) {
    shown = wave;
    setQuery({ wave });
    await showMembers({ isAsked: true });
    detail.tabIndex = -1;
    detail.focus();
  }

  async function showMembers({ isAsked }) {
    const wave = await get(at`service/waves/${shown}`, { limit: 50 });
    const more = wave.is_complete ? "" : "; those that do badly come first";
    const words = `${wave.version}: ${many(wave.tenants, "tenant")}, ${count(wave.judged)} of ${many(
      wave.expected,
      "data set",
    )} judged, ${count(wave.bad)} worse or failed${more}`;
    members.update(
      wave.members.flatMap((member) => rowsOf(member, wave)),
      { isAsked },
    );
    detail.replaceChildren(el("p", { class: "quiet" }, words), members.element);
    read.hidden = false;
  }

  async function change(verb, wave) {
    const [title, action, words] = QUESTIONS[verb];
    const control = el("input", { maxlength: REASON_LENGTH_MAX, size: "40" });
    const fields = verb === "resume" ? {} : { reason: { label: "Reason", control, hint: "Optional" } };
    const anyway = el("input", { type: "checkbox" });
    const waive = el("label", {}, anyway, " go to the next stage, although too few data sets were judged");
    const text = [el("p", {}, words), verb === "resume" ? el("p", {}, waive) : null];
    const submit = (values) =>
      post(at`service/waves/${wave}/${verb}`, verb === "resume" ? { anyway: anyway.checked } : values);
    const answer = await ask({ title, text, fields, action, danger: verb === "back", submit });
    if (!answer) return;
    status.replaceChildren(banner("good", `The wave of ${answer.version} is ${STATES[answer.state]}.`));
    await reload();
  }

  async function load({ isAsked }) {
    const { items } = await get("v1/service/waves", { limit: SHOWN });
    list.update(items, { isAsked });
    if (shown) await showMembers({ isAsked });
  }
  return { load, seconds: SECONDS };
}

const QUESTIONS = {
  pause: ["Pause this wave?", "Pause", "No more tenants are moved; those that were moved keep the version."],
  resume: ["Resume this wave?", "Resume", "Its stage has its time anew."],
  back: [
    "Let this wave go back?",
    "Go back",
    "Its tenants get back the versions that they had, and train on them again.",
  ],
};

function beginning(status, reload) {
  const version = el("input", { size: "24", required: true, placeholder: "neighbours@2" });
  const stages = el("input", { size: "16", value: "1, 10, 50, 100" });
  const tier = el("input", { size: "12" });
  const tag = el("input", { size: "12" });
  const plan = el("button", { class: "main" }, "Show whom it would move");
  const form = el(
    "form",
    { class: "fields" },
    field("Version", version, "Of an algorithm in the policy"),
    field("Stages", stages, "Percent of the tenants"),
    field("Tier", tier, "Optional"),
    field("Tag", tag, "Optional"),
    el("div", { class: "field" }, plan),
  );
  const body = () => ({
    version: version.value.trim(),
    stages: stages.value.split(",").map(Number),
    tier: tier.value.trim(),
    tag: tag.value.trim(),
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(plan, status, async () => {
      const wave = body();
      const answer = await post("v1/service/waves", { ...wave, dry_run: true });
      const lines = answer.stages.map((stage) =>
        el("li", {}, `${stage.percent} %: ${many(stage.count, "tenant")} `, named(stage)),
      );
      const text = [
        el("ol", {}, lines),
        el("p", {}, "Each of them trains its data sets again, within its limits and its budget."),
      ];
      const submit = () => post("v1/service/waves", wave);
      const title = `Begin a wave of ${wave.version}?`;
      if (!(await ask({ title, text, action: "Begin the wave", submit }))) return;
      status.replaceChildren(banner("good", "The wave has begun: its first tenants are moved within minutes."));
      version.value = "";
      await reload();
    });
  });
  return form;
}

function named({ tenants, count: all }) {
  if (!tenants.length) return null;
  const more = all > NAMES_SHOWN ? ", …" : "";
  return el("small", {}, tenants.slice(0, NAMES_SHOWN).join(", ") + more);
}

function listOf(mayChange) {
  const button = (wave, does, text) =>
    el(
      "button",
      {
        type: "button",
        data: { does, wave: wave.wave_id },
        class: does === "back" ? "danger" : "",
        "aria-label": `${text}: ${wave.version}, ${wave.wave_id}`,
      },
      text,
    );
  const steers = (wave) => {
    if (!mayChange) return [];
    const goesBack = wave.state === "GOING_BACK" || wave.state === "ROLLED_BACK";
    return [
      wave.state === "RUNNING" ? button(wave, "pause", "Pause") : null,
      wave.state === "PAUSED" ? button(wave, "resume", "Resume") : null,
      goesBack ? null : button(wave, "back", "Go back"),
    ];
  };
  return table({
    caption: "Waves, newest first",
    key: (wave) => wave.wave_id,
    empty: "There are no waves.",
    columns: [
      { title: "Version", head: true, cell: (wave) => wave.version },
      {
        title: "State",
        cell: (wave) => [STATES[wave.state], wave.reason ? el("div", {}, el("small", {}, wave.reason)) : null],
      },
      { title: "Stage", cell: (wave) => `${wave.stages[wave.stage]} % of ${wave.stages.join(", ")} %` },
      { title: "For", cell: (wave) => [wave.tier, wave.tag].filter(Boolean).join(", ") || "all" },
      { title: "Begun", cell: (wave) => [time(wave.begun_at), el("div", {}, el("small", {}, wave.begun_by))] },
      {
        title: "Actions",
        cell: (wave) => el("div", { class: "buttons" }, button(wave, "show", "Tenants"), ...steers(wave)),
      },
    ],
  });
}

function rowsOf(member, wave) {
  const row = { ...member, percent: wave.stages[member.stage], data_set: null, verdict: null };
  return member.judged.length
    ? member.judged.map((each) => ({
        ...row,
        ...each,
        reason: [each.reason, member.reason].filter(Boolean).join("; "),
      }))
    : [row];
}

function membersOf(linkOf) {
  return table({
    caption: "Tenants of the wave",
    key: (row) => `${row.tenant_id} ${row.data_set}`,
    empty: "There are no tenants of this wave yet.",
    columns: [
      {
        title: "Tenant",
        head: true,
        cell: (row) => el("a", { href: linkOf(row.tenant_id, "requests") }, row.tenant_id),
      },
      { title: "Stage", class: "number", cell: (row) => `${row.percent} %` },
      { title: "State", cell: (row) => row.state.toLowerCase().replaceAll("_", " ") },
      { title: "Data set", cell: (row) => row.data_set ?? "–" },
      { title: "Judged", cell: (row) => row.verdict ?? "not yet" },
      {
        title: "Gain",
        class: "number",
        cell: (row) => (row.gain === null || !row.verdict ? "–" : signed(row.gain)),
      },
      { title: "Reason", class: "text", cell: (row) => row.reason || "–" },
    ],
  });
}
