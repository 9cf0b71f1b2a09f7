// Lists of which the API gives one page after the other.

const PAGES_EMPTY_MAX = 5;
const PAGES_RELOADED_MAX = 4;

/**
 * Return { load, more, reset, items, hasMore }. `read(cursor)` returns a page { items, next }; items are known by
 * `key`. load() returns all items so far: the newest pages are read again, those beyond are as they were.
 */
export function pages({ read, key }) {
  let shown = 1,
    generation = 0,
    kept = [],
    beyond = [],
    next = null;

  /** Filtered pages may be empty, and yet others follow. */
  async function page(cursor) {
    let answer = await read(cursor);
    for (let tries = 1; !answer.items.length && answer.next && tries < PAGES_EMPTY_MAX; tries += 1)
      answer = await read(answer.next);
    return answer;
  }

  async function load() {
    const mine = generation;
    const items = [];
    let cursor = null;
    for (let number = 0; number < Math.min(shown, PAGES_RELOADED_MAX); number += 1) {
      const answer = await page(cursor);
      items.push(...answer.items);
      cursor = answer.next;
      if (cursor === null) break;
    }
    if (mine !== generation) return kept;
    const fresh = new Set(items.map(key));
    beyond = beyond.filter((item) => !fresh.has(key(item)));
    if (shown <= PAGES_RELOADED_MAX) next = cursor;
    kept = [...items, ...beyond];
    return kept;
  }

  async function more() {
    if (next === null) return;
    const mine = generation;
    const answer = await page(next);
    if (mine !== generation) return;
    const present = new Set(kept.map(key));
    const added = answer.items.filter((item) => !present.has(key(item)));
    kept = [...kept, ...added];
    next = answer.next;
    shown += 1;
    if (shown > PAGES_RELOADED_MAX) beyond = [...beyond, ...added];
  }

  function reset() {
    generation += 1;
    [shown, kept, beyond, next] = [1, [], [], null];
  }

  return { load, more, reset, items: () => kept, hasMore: () => next !== null };
}
