// The requests that came to an end on a day: the API lists them by tier and state, newest first.

import { get } from "./api.js";

export const ENDS = ["SUCCEEDED", "FAILED", "STOPPED"];
const PAGES_MAX = 3;
const AT_ONCE = 4;

/** Return what reads the requests that ended on a day in some states; what it has read, it does not read again. */
export function endedOn(day, states) {
  const lists = new Map();

  async function read(tier, state) {
    const name = `${tier} ${state}`;
    const known = lists.get(name) ?? { requests: new Map(), isPartial: false };
    const fresh = [];
    let cursor = null;
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const answer = await get("v1/service/ended", { tier, state, day, limit: 100, cursor });
      fresh.push(...answer.items);
      cursor = answer.next;
      if (cursor === null || answer.items.some((request) => known.requests.has(request.request_id))) break;
      known.isPartial ||= page === PAGES_MAX - 1;
    }
    for (const request of fresh) known.requests.set(request.request_id, request);
    lists.set(name, known);
  }

  /** Return { requests, isPartial }: newest first; of many, the newest. */
  return async (tiers) => {
    const wanted = tiers.flatMap((tier) => states.map((state) => [tier, state]));
    for (let index = 0; index < wanted.length; index += AT_ONCE) {
      await Promise.all(wanted.slice(index, index + AT_ONCE).map(([tier, state]) => read(tier, state)));
    }
    const all = [...lists.values()];
    const requests = all.flatMap((list) => [...list.requests.values()]);
    requests.sort((a, b) => (a.finished_at < b.finished_at ? 1 : -1));
    return { requests, isPartial: all.some((list) => list.isPartial) };
  };
}
