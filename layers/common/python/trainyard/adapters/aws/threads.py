"""Calls beside each other: AWS answers many at once, and each takes tens of milliseconds."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = 8
"""Below the ten connections that a client keeps open (botocore, `max_pool_connections`)."""


def beside_each_other(do: Callable[[A], B], each: Iterable[A], /) -> list[B]:
    """Implements AtOnce; raises the first error when all have ended."""
    some = list(each)
    return [do(one) for one in some] if len(some) < 2 else list(_pool().map(do, some))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)
