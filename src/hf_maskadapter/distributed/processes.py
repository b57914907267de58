"""Several processes on one machine, of which those that die begin again."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

_MOST_DEATHS = 3
_POLLING = 0.5
_PATIENCE = 20.0  # seconds for a process that was asked to end


class WorkerDiedError(RuntimeError):
    """A process was ended from outside too often; the message says which, and by what."""


def run_processes(
    work: Callable[..., int],
    arguments: Callable[[int], tuple[Any, ...]],
    num_processes: int,
    *,
    report: Callable[[str], None],
    watch: Callable[[], None] = lambda: None,
) -> list[int]:
    """Run `work` in processes of its own, and again where a process was ended by a signal.

    PyTorch's threads are shared out among them, unless `OMP_NUM_THREADS` is set. They end with this process, however
    it ends.

    Args:
        work: a function of a module, which returns an exit status.
        arguments: those of the process of a number, which can be pickled.
        num_processes: how many.
        report: takes a line where a process begins again.
        watch: is called twice a second.

    Returns:
        The exit statuses.

    Raises:
        WorkerDiedError: if one process was ended three times by a signal, as by the system where memory is short. The
            others are ended, too.
    """
    context = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork
    deaths = [0] * num_processes
    statuses: dict[int, int] = {}
    running: dict[int, BaseProcess] = {}

    def start(index: int) -> None:
        process = context.Process(target=_work, args=(work, arguments(index)), name=f"part-{index}")
        process.start()
        running[index] = process

    try:
        with _threads_shared_out(num_processes):
            for index in range(num_processes):
                start(index)
            while running:
                wait([process.sentinel for process in running.values()], timeout=_POLLING)
                watch()
                for index, process in list(running.items()):
                    if process.is_alive():
                        continue
                    process.join()
                    del running[index]
                    status = process.exitcode or 0
                    if status >= 0:
                        statuses[index] = status
                        continue
                    deaths[index] += 1
                    if deaths[index] >= _MOST_DEATHS:
                        raise WorkerDiedError(
                            f"process {index} of {num_processes} was ended {_MOST_DEATHS} times by signal {-status}; "
                            "if memory is short, use fewer processes. Give the command again to go on"
                        )
                    report(f"process {index} of {num_processes} was ended by signal {-status}: it begins again")
                    start(index)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
    return [statuses[index] for index in range(num_processes)]


def _work(work: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    raise SystemExit(work(*arguments))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _threads_shared_out(num_processes: int) -> Iterator[None]:
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(max(1, usable_cores() // num_processes))
    try:
        yield
    finally:
        del os.environ[name]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["WorkerDiedError", "run_processes", "usable_cores"]
