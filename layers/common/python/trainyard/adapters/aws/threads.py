"""Concurrent calls to AWS: each takes tens of milliseconds, and many can run at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = 8
"""Below the ten connections that a client keeps open (botocore, `max_pool_connections`)."""


def parallel_map(do: Callable[[A], B], each: Iterable[A], /) -> list[B]:
    """Implements ParallelMap; waits for all calls, and then raises the first error."""
    some = list(each)
    if len(some) < 2:
        return [do(item) for item in some]
    futures = [_pool().submit(do, item) for item in some]
    wait(futures)
    return [future.result() for future in futures]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)
