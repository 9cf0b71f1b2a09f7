// Puts files into S3 directly: by one PUT, or in parts. Uploads go on while the user looks at other pages.

import { ApiError, at, post, SignedOut } from "./api.js";
import { banner, el } from "./dom.js";
import { bytes } from "./format.js";

const TRIES = 4;
const AT_ONCE = 3;
const MOMENT_SECONDS = 3;
const UNKNOWN =
  "It is not known yet whether the upload is complete. Before you try again, see whether it has a request.";

const bars = document.querySelector(".uploads");
const running = new Set();

/** Stop all uploads, since the user signs out, and discard their parts, if that takes no longer than a moment. */
export async function stopUploads() {
  for (const { controller } of running) controller.abort();
  const ended = Promise.all([...running].map((each) => each.ended));
  await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, MOMENT_SECONDS * 1000))]);
  bars.replaceChildren();
}

/** Upload a file to a data set, and show how far it is; `requests` is where its request will be. */
export function upload(tenant, data_set, file, requests) {
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
  addEventListener("beforeunload", hold);
  const sent = send(tenant, { data_set, name: file.name }, file, controller.signal, {
    progressed: (count) => {
      progress.value = count;
      text.textContent = `Uploading ${file.name} to ${data_set}: ${bytes(count)} of ${bytes(file.size)}`;
      // From here on, stopping would not say what became of it.
      stop.disabled = count >= file.size;
    },
  });
  const link = el("a", { href: requests }, "request");
  const good = () =>
    banner("good", `${file.name} is uploaded. Its `, link, " will appear in a few seconds. ", dismiss(ended));
  const stopped = `The upload of ${file.name} was stopped. Nothing was saved.`;
  const bad = (error) =>
    banner("bad", controller.signal.aborted ? stopped : `${file.name}: ${error.message}`, " ", dismiss(ended));
  const item = { controller };
  item.ended = sent.then(good, bad).then((words) => {
    ended.append(words);
    bar.remove();
    running.delete(item);
    if (!running.size) removeEventListener("beforeunload", hold);
  });
  running.add(item);
}

const hold = (event) => event.preventDefault();
const dismiss = (element) =>
  el("button", { type: "button", class: "link", onclick: () => element.remove() }, "Dismiss");

async function send(tenant, name, file, signal, options) {
  const place = await post(at`tenants/${tenant}/uploads`, { ...name, size_bytes: file.size });
  if (place.url) return put(place.url, file, { signal, ...options });
  try {
    const parts = await putParts(place.parts, file, signal, options);
    return await complete(at`tenants/${tenant}/uploads/${place.upload_id}/complete`, { ...name, parts });
  } catch (error) {
    if (!error.isUnknown) await post(at`tenants/${tenant}/uploads/${place.upload_id}/abort`, name).catch(() => {});
    throw error;
  }
}

/** Put the parts, some at once, and return their numbers and entity tags; after a failure, no further one. */
async function putParts(parts, file, signal, { progressed }) {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const sent = new Map();
  const waiting = [...parts];
  const done = [];
  let start = 0;
  async function worker() {
    for (let part = waiting.shift(); part && !either.aborted; part = waiting.shift()) {
      const { number, size_bytes: size, url } = part;
      const piece = file.slice(start, (start += size));
      const count = (bytesSent) => {
        sent.set(number, bytesSent);
        progressed([...sent.values()].reduce((sum, each) => sum + each, 0));
      };
      done.push({ number, etag: await put(url, piece, { signal: either, progressed: count }) });
    }
  }
  const workers = Array.from({ length: AT_ONCE }, () =>
    worker().catch((error) => {
      failed.abort();
      throw error;
    }),
  );
  const results = await Promise.allSettled(workers);
  const failure = results.find((result) => result.status === "rejected");
  if (failure) throw failure.reason;
  return done.sort((a, b) => a.number - b.number);
}

/** Make one object of the parts. Where that takes longer than an answer may, it is done all the same. */
async function complete(address, body) {
  try {
    await post(address, body);
  } catch (error) {
    if (error instanceof SignedOut || (error instanceof ApiError && error.status < 500)) throw error;
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
