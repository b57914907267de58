"""Work on several items at once in threads, in order and with few of them waiting."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last of fewer."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], num_threads: int, prepare: Callable[[], object] | None = None
) -> Iterator[Result]:
    """The results of `work` for each item, in order, made in threads.

    At most twice as many items as there are threads are read ahead, in the caller's thread. When the reader gives up
    or an error is raised, which happens in the place of its result, items that wait are dropped, and what threads have
    begun is waited for.

    Args:
        work: called in a thread.
        items: read in the caller's thread.
        num_threads: how many; with one, one item is worked on while the caller has the result before it.
        prepare: called in each thread before its first item.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_threads, "pictures", prepare)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


__all__ = ["in_batches", "in_threads"]
