"""Prepare the next pictures while the model computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

import torch

Item = TypeVar("Item")

_END = object()


def prefetching_pays(device: torch.device) -> bool:
    """Whether preparing ahead in a thread saves time: where the model leaves the CPU idle."""
    return device.type != "cpu"


class Prefetched(Generic[Item]):
    """The items of an iterable, read ahead by a background thread while the reader works with the one before.

    Order and errors are those of the iterable: an error is raised where its item would have come. The thread ends with
    the items, or when the reader gives up.

    Args:
        items: read once for each iteration, by one thread; its length, if it has one, is this object's.
        ahead: items that may wait.

    Raises:
        ValueError: `ahead` is less than 1.
    """

    def __init__(self, items: Iterable[Item], ahead: int = 2):
        if ahead < 1:
            raise ValueError(f"ahead is a number of items that may wait, at least 1, got {ahead}.")
        self.items, self.ahead = items, ahead

    def __len__(self) -> int:
        if not isinstance(self.items, Sized):
            raise TypeError(f"{type(self.items).__name__} has no length.")
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(self.ahead)
        given_up = threading.Event()

        def put(entry: tuple[Any, BaseException | None]) -> None:
            while not given_up.is_set():
                try:
                    return waiting.put(entry, timeout=0.1)
                except queue.Full:
                    continue

        def read() -> None:
            try:
                for item in self.items:
                    put((item, None))
                    if given_up.is_set():
                        return
                put((_END, None))
            except BaseException as error:  # raised again in the reader's thread
                put((_END, error))

        threading.Thread(target=read, name="prefetching", daemon=True).start()
        try:
            while True:
                item, error = waiting.get()
                if error is not None:
                    raise error
                if item is _END:
                    return
                yield item
        finally:
            given_up.set()


__all__ = ["Prefetched", "prefetching_pays"]
