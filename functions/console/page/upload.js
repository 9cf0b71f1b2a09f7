// Puts a file into S3 directly: by one PUT, or in parts, each tried again when the connection fails.

import { at, post } from "./api.js";

const TRIES = 4;

/** Upload a file to a data set; progressed(bytes) is called as it goes on. Nothing is kept of what is aborted. */
export async function upload(tenant, data_set, file, { signal, progressed }) {
  const name = { data_set, name: file.name };
  const place = await post(at`tenants/${tenant}/uploads`, { ...name, size_bytes: file.size });
  if (place.url) {
    await put(place.url, file, { signal, progressed });
    return;
  }
  try {
    const parts = [];
    let sent = 0;
    for (const part of place.parts) {
      const piece = file.slice(sent, sent + part.size_bytes);
      const before = sent;
      parts.push({
        number: part.number,
        etag: await put(part.url, piece, { signal, progressed: (more) => progressed(before + more) }),
      });
      sent += part.size_bytes;
    }
    await post(at`tenants/${tenant}/uploads/${place.upload_id}/complete`, { ...name, parts });
  } catch (error) {
    await post(at`tenants/${tenant}/uploads/${place.upload_id}/abort`, name).catch(() => {});
    throw error;
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
    const call = new XMLHttpRequest();
    call.open("PUT", url);
    call.upload.addEventListener("progress", (event) => progressed(event.loaded));
    call.addEventListener("load", () => {
      if (call.status === 200) return resolve(call.getResponseHeader("ETag"));
      const error = new Error(`The storage refused the file (status ${call.status}). Try the upload again.`);
      error.isFinal = call.status < 500;
      return reject(error);
    });
    call.addEventListener("error", () =>
      reject(new Error("The connection to the storage failed. Try the upload again.")),
    );
    call.addEventListener("abort", () => reject(new Error("The upload was stopped.")));
    signal.addEventListener("abort", () => call.abort());
    if (signal.aborted) return call.abort();
    // Without a type of its own, as the address is signed.
    return call.send(content.slice(0, content.size, ""));
  });
}
