"""The queue before the model: what waits is taken in batches by the one thread that computes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Work, Result]):
    work: Work
    key: Any
    result: asyncio.Future[Result]
    since: float = field(default_factory=time.perf_counter)


class BatchingQueue(Generic[Work, Result]):
    """Work that waits for one thread, which takes what goes together at a time.

    The oldest work comes first, with as many others of its key as a batch holds. While a batch is computed, others
    arrive; nothing waits for a batch to fill up. All methods belong to the event loop, `compute` to the thread.

    Args:
        compute: takes works of one key; returns a result, or an exception in its place, for each.
        batch_size: most works at a time.
        observe: is told the size, the seconds of waiting of each, and the seconds of computing of every batch.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Work]], Sequence[Result | Exception]],
        batch_size: int,
        observe: Callable[[int, Sequence[float], float], None],
    ):
        self._compute, self._batch_size, self._observe = compute, batch_size, observe
        self._waiting: list[_Waiting[Work, Result]] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def start(self) -> None:
        """Begin to compute."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End after the batch that is being computed; what waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for entry in self._waiting:
            entry.result.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def put(self, work: Work, key: Any) -> Result:
        """Wait for a work's result. If the waiting is cancelled, the work leaves the queue.

        Args:
            work: what to compute.
            key: works of equal keys go together.

        Raises:
            Exception: what `compute` gave in place of a result.
        """
        entry = _Waiting[Work, Result](work, key, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrived.set()
        try:
            return await entry.result
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                continue
            start = time.perf_counter()
            results = await loop.run_in_executor(self._thread, self._computed, [entry.work for entry in batch])
            self._observe(len(batch), [start - entry.since for entry in batch], time.perf_counter() - start)
            for entry, result in zip(batch, results, strict=True):
                if entry.result.done():  # nobody waits any more
                    continue
                if isinstance(result, Exception):
                    entry.result.set_exception(result)
                else:
                    entry.result.set_result(result)

    def _next_batch(self) -> list[_Waiting[Work, Result]]:
        if not self._waiting:
            return []
        key = self._waiting[0].key
        batch = [entry for entry in self._waiting if entry.key == key][: self._batch_size]
        self._waiting = [entry for entry in self._waiting if entry not in batch]
        return batch

    def _computed(self, works: Sequence[Work]) -> Sequence[Result | Exception]:
        try:
            return self._compute(works)
        except Exception as error:
            if len(works) == 1:
                return [error]
        # One of them may be at fault, or memory too small for all at once.
        return [result for work in works for result in self._computed([work])]


__all__ = ["BatchingQueue"]
