// Data sets: upload a file with its price and place known before, or train again on what is there.

import { at, get, newKey, post } from "../api.js";
import { ask, el, field, panel } from "../dom.js";
import { bytes } from "../format.js";
import { table } from "../table.js";
import { upload } from "../upload.js";
import { explained } from "./request.js";

export const title = () => "Data sets";

export function show(view, context) {
  const { tenant, mayChange, link } = context;
  const names = el("datalist", { id: "data-sets" });
  const list = table({
    caption: `Data sets of ${tenant}`,
    key: (row) => row.name,
    empty: "There are no data sets yet. Upload a file: its data set is made with it.",
    columns: [
      { title: "Data set", head: true, cell: (row) => row.name },
      { title: "Settings", cell: (row) => (row.has_own_settings ? "its own" : "the tenant's") },
      {
        title: "Requests",
        cell: (row) =>
          el("a", { href: `${link("requests")}?data_set=${encodeURIComponent(row.name)}` }, "see requests"),
      },
      ...(mayChange
        ? [
            {
              title: "Train",
              cell: (row) => el("button", { type: "button", data: { train: row.name } }, "Train again"),
            },
          ]
        : []),
    ],
  });
  const said = el("div", { role: "status" });
  list.element.addEventListener("click", (event) => {
    if (event.target.dataset?.train) train(event.target.dataset.train);
  });
  view.append(
    names,
    ...(mayChange ? [uploader(context)] : []),
    said,
    el("div", { class: "panel tall" }, list.element),
  );

  async function train(name) {
    if (
      !(await ask({
        title: `Train ${name} again?`,
        action: "Train",
        text: [el("p", {}, "On all that has been uploaded to it before; it costs what a training costs.")],
      }))
    )
      return;
    try {
      const { request_id: id } = await post(
        at`tenants/${tenant}/requests`,
        { data_set: name },
        { "Idempotency-Key": newKey() },
      );
      said.replaceChildren(
        el(
          "p",
          { class: "banner good" },
          "Asked for: ",
          el("a", { href: link("requests", id) }, `request ${id.slice(0, 8)}`),
          " is there within seconds.",
        ),
      );
    } catch (error) {
      said.replaceChildren(el("p", { class: "banner bad" }, error.message));
    }
  }

  return async ({ isAsked }) => {
    const { items } = await get(at`tenants/${tenant}/data-sets`);
    list.update(items, { isAsked });
    names.replaceChildren(...items.map((row) => el("option", { value: row.name })));
  };
}

function uploader({ tenant, link }) {
  const name = el("input", {
    list: "data-sets",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    size: "20",
  });
  const file = el("input", { type: "file" });
  const drop = el("div", { class: "drop" }, el("p", {}, "Drop a file here, or choose one:"), field("File", file));
  const quote = el("div", { role: "status" });
  const start = el("button", { type: "button", class: "main", disabled: true, onclick: send }, "Upload");
  let chosen = null,
    asked = 0;

  async function ask_for_quote() {
    start.disabled = true;
    const data_set = name.value.trim();
    if (!chosen || !data_set) return quote.replaceChildren();
    const number = ++asked;
    quote.replaceChildren(el("p", { class: "quiet" }, "Asking what it would cost…"));
    try {
      const answer = await post(at`tenants/${tenant}/quotes`, {
        data_set,
        name: chosen.name,
        size_bytes: chosen.size,
      });
      if (number !== asked) return;
      quote.replaceChildren(
        el("h3", {}, `${chosen.name}, ${bytes(chosen.size)}: what to expect`),
        ...explained({ ...answer, budget: null }),
        answer.replaces
          ? el(
              "p",
              { class: "banner" },
              `Request ${answer.replaces.slice(0, 8)}, which waits, would be superseded.`,
            )
          : "",
      );
      start.disabled = false;
    } catch (error) {
      if (number === asked) quote.replaceChildren(el("p", { class: "banner bad" }, error.message));
    }
  }

  async function send() {
    const [data_set, content] = [name.value.trim(), chosen];
    const progress = el("progress", {
      max: content.size || 1,
      value: 0,
      "aria-label": `Upload of ${content.name}`,
    });
    const text = el("p", {}, `Uploading ${content.name}`);
    const abort = el("button", { type: "button" }, "Stop the upload");
    quote.replaceChildren(text, progress, abort);
    start.disabled = true;
    const controller = new AbortController();
    abort.addEventListener("click", () => controller.abort());
    addEventListener("beforeunload", hold);
    try {
      await upload(tenant, data_set, content, {
        signal: controller.signal,
        progressed: (sent) => {
          progress.value = sent;
          text.textContent = `Uploading ${content.name}: ${bytes(sent)} of ${bytes(content.size)}`;
        },
      });
      quote.replaceChildren(
        el(
          "p",
          { class: "banner good" },
          `${content.name} is uploaded. Its `,
          el("a", { href: `${link("requests")}?data_set=${encodeURIComponent(data_set)}` }, "request"),
          " is there within seconds.",
        ),
      );
      file.value = "";
      chosen = null;
    } catch (error) {
      quote.replaceChildren(
        el(
          "p",
          { class: "banner bad" },
          controller.signal.aborted ? "The upload was stopped; nothing was kept of it." : error.message,
        ),
      );
      start.disabled = controller.signal.aborted ? false : !chosen;
    } finally {
      removeEventListener("beforeunload", hold);
    }
  }

  function choose(content) {
    chosen = content || null;
    if (chosen && !name.value)
      name.value = chosen.name
        .replace(/\.[^.]*$/, "")
        .toLowerCase()
        .replace(/[^a-z0-9-]+/g, "-")
        .replace(/^-+|-+$/g, "")
        .slice(0, 40);
    ask_for_quote();
  }

  file.addEventListener("change", () => choose(file.files[0]));
  name.addEventListener("change", ask_for_quote);
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") choose(event.dataTransfer.files[0]);
    });
  }
  return panel(
    "Upload a file",
    el("div", { class: "fields" }, field("Data set", name, "An existing one, or a new name")),
    drop,
    quote,
    el("div", { class: "buttons more" }, start),
  );
}

const hold = (event) => event.preventDefault();
