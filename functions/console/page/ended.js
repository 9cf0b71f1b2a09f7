// The requests that came to an end on a day: the API lists them by tier and state.

import { get } from "./api.js";

export const ENDS = ["SUCCEEDED", "FAILED", "STOPPED"];
const PAGES_MAX = 3;
const AT_ONCE = 4;

/** Return { requests, isPartial }: those of some states on a day, of all tiers; of many, the newest. */
export async function ended(tiers, states, day, cache) {
  const lists = tiers.flatMap((tier) => states.map((state) => ({ tier, state, day })));
  const pages = [];
  for (let index = 0; index < lists.length; index += AT_ONCE) {
    pages.push(...(await Promise.all(lists.slice(index, index + AT_ONCE).map(all))));
  }
  const requests = pages.flatMap((page) => page.items).sort((a, b) => (a.finished_at < b.finished_at ? 1 : -1));
  for (const request of requests) cache?.set(request.request_id, request);
  return { requests, isPartial: pages.some((page) => page.isPartial) };
}

async function all(query) {
  const items = [];
  let cursor;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await get("v1/service/ended", { ...query, limit: 100, cursor });
    items.push(...answer.items);
    cursor = answer.next;
    if (!cursor) return { items, isPartial: false };
  }
  return { items, isPartial: true };
}
