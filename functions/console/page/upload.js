// Puts files into S3 directly: by one PUT, or in parts. Uploads go on while the user looks at other pages.

import { ApiError, at, post } from "./api.js";
import { banner, el } from "./dom.js";
import { bytes } from "./format.js";

const TRIES = 4;
const AT_ONCE = 3;
const UNKNOWN =
  "It is not known yet whether the upload is complete. Before you try again, see whether it has a request.";

const bars = document.querySelector(".uploads");
const running = new Set();

/** Stop all uploads: the user signs out. */
export function stopUploads() {
  for (const controller of running) controller.abort();
}

/** Upload a file to a data set, and show how far it is; `requests` is where its request will be. */
export async function upload(tenant, data_set, file, requests) {
  const controller = new AbortController();
  const progress = el("progress", { max: file.size || 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const text = el("span", {}, `Uploading ${file.name} to ${data_set}`);
  const stop = el("button", { type: "button", onclick: () => controller.abort() }, "Stop the upload");
  const bar = el(
    "div",
    { class: "panel", role: "group", "aria-label": `Upload of ${file.name}` },
    text,
    progress,
    stop,
  );
  const ended = el("div", { role: "status" });
  bars.append(bar, ended);
  running.add(controller);
  addEventListener("beforeunload", hold);
  try {
    await send(tenant, { data_set, name: file.name }, file, controller.signal, (sent) => {
      progress.value = sent;
      text.textContent = `Uploading ${file.name} to ${data_set}: ${bytes(sent)} of ${bytes(file.size)}`;
    });
    ended.append(
      banner(
        "good",
        `${file.name} is uploaded. Its `,
        el("a", { href: requests }, "request"),
        " will appear in a few seconds. ",
        dismiss(ended),
      ),
    );
  } catch (error) {
    const words = controller.signal.aborted
      ? `The upload of ${file.name} was stopped. Nothing was saved.`
      : `${file.name}: ${error.message}`;
    ended.append(banner("bad", words, " ", dismiss(ended)));
  } finally {
    bar.remove();
    running.delete(controller);
    if (!running.size) removeEventListener("beforeunload", hold);
  }
}

const hold = (event) => event.preventDefault();
const dismiss = (element) =>
  el("button", { type: "button", class: "link", onclick: () => element.remove() }, "Dismiss");

async function send(tenant, name, file, signal, progressed) {
  const place = await post(at`tenants/${tenant}/uploads`, { ...name, size_bytes: file.size });
  if (place.url) return put(place.url, file, { signal, progressed });
  try {
    const parts = await putParts(place.parts, file, signal, progressed);
    return await complete(at`tenants/${tenant}/uploads/${place.upload_id}/complete`, { ...name, parts });
  } catch (error) {
    if (!error.isUnknown) await post(at`tenants/${tenant}/uploads/${place.upload_id}/abort`, name).catch(() => {});
    throw error;
  }
}

/** Put the parts, some at once, and return their numbers and entity tags. */
async function putParts(parts, file, signal, progressed) {
  const sent = new Map();
  const starts = parts.map((_, index) => parts.slice(0, index).reduce((sum, part) => sum + part.size_bytes, 0));
  const waiting = parts.map((part, index) => ({ ...part, start: starts[index] }));
  const done = [];
  async function worker() {
    for (let part = waiting.shift(); part; part = waiting.shift()) {
      const { number, start, size_bytes: size, url } = part;
      const told = (count) => {
        sent.set(number, count);
        progressed([...sent.values()].reduce((sum, each) => sum + each, 0));
      };
      done.push({ number, etag: await put(url, file.slice(start, start + size), { signal, progressed: told }) });
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return done.sort((a, b) => a.number - b.number);
}

/** Make one object of the parts. Where that takes longer than an answer may, it is done all the same. */
async function complete(address, body) {
  try {
    await post(address, body);
  } catch (error) {
    if (error instanceof ApiError && error.status < 500) throw error;
    const unknown = new Error(UNKNOWN);
    unknown.isUnknown = true;
    throw unknown;
  }
}

async function put(url, content, options) {
  for (let number = 1; ; number += 1) {
    try {
      return await once(url, content, options);
    } catch (error) {
      if (options.signal.aborted || error.isFinal || number === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** number));
    }
  }
}

/** Return the entity tag of what was put. XMLHttpRequest tells how far it is, which fetch does not. */
function once(url, content, { signal, progressed }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Error("The upload was stopped."));
    const call = new XMLHttpRequest();
    const stop = () => call.abort();
    signal.addEventListener("abort", stop, { once: true });
    call.open("PUT", url);
    call.upload.addEventListener("progress", (event) => progressed(event.loaded));
    call.addEventListener("load", () =>
      call.status === 200 ? resolve(call.getResponseHeader("ETag")) : reject(refusal(call.status)),
    );
    call.addEventListener("error", () =>
      reject(new Error("The connection to the storage failed. Try the upload again.")),
    );
    call.addEventListener("abort", () => reject(new Error("The upload was stopped.")));
    call.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
    // Without a type of its own, as the address is signed.
    return call.send(content.slice(0, content.size, ""));
  });
}

function refusal(status) {
  const why = status === 403 ? "Its address may have expired, after an hour." : "Try the upload again.";
  const error = new Error(`The storage refused the file (status ${status}). ${why}`);
  error.isFinal = status < 500;
  return error;
}
