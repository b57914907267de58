"""How every command ends: mistakes in one line, an exit status, and no process left in a group."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

EXIT_OK, EXIT_SOME_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143

MENDABLE_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
"""What the user can mend: wrong values, files and data, the Hub, packages that are not there, numbers that overflow.

The package's own errors derive from these. All others are faults of the program and keep their traceback.
"""


class UserError(Exception):
    """Something that the user can mend: reported in one line, without a traceback."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); what tidies up after Ctrl-C tidies up after it, too."""


class Parser(argparse.ArgumentParser):
    """Reports mistakes in one line."""

    def error(self, message: str) -> NoReturn:
        """End the process with a line that names the mistake."""
        self.exit(EXIT_USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def one_line(error: BaseException) -> str:
    """An exception's message in one line; of a file's error, the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def run_to_status(name: str, work: Callable[[], int], extra: str = "") -> int:
    """Do a command's work, and tell in one line on standard error what went wrong that the user can mend.

    Ctrl-C and SIGTERM end it with one line, too: an interruption's own text, such as where a checkpoint was saved, or
    "interrupted".

    Args:
        name: The command, as the line calls it.
        work: What to do; returns the exit status.
        extra: The package's extra that holds the libraries that it needs, for a hint where one is missing.

    Returns:
        The exit status: `work`'s, 2 for a mistake of the user's, 130 after Ctrl-C, 143 after SIGTERM.
    """
    stopping = _Stopping()
    try:
        with stopping.noted():
            return work()
    except KeyboardInterrupt as interruption:
        told = one_line(interruption) if str(interruption) else "interrupted"
        print(f"{name}: {told}", file=sys.stderr)
        return EXIT_TERMINATED if isinstance(interruption, Terminated) else EXIT_INTERRUPTED
    except Exception as error:
        if stopping.received is not None:  # libraries make other errors of an interruption while they are imported
            was_told_to_end = stopping.received == signal.SIGTERM
            print(f"{name}: {'terminated' if was_told_to_end else 'interrupted'}", file=sys.stderr)
            return EXIT_TERMINATED if was_told_to_end else EXIT_INTERRUPTED
        if isinstance(error, BrokenPipeError):  # the reader of our output, such as `head`, has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_SOME_FAILED
        if not isinstance(error, (UserError, *MENDABLE_ERRORS)):
            raise
        if isinstance(error, ImportError) and (error.name or "").startswith("hf_maskadapter"):
            raise
        hint = f": pip install 'hf-maskadapter[{extra}]'" if extra and isinstance(error, ModuleNotFoundError) else ""
        print(f"{name}: error: {one_line(error)}{hint}", file=sys.stderr)
        return EXIT_USER_ERROR
    finally:
        leave_process_group()


def run_script(work: Callable[[], str | None]) -> int:
    """Do the work of a script of your own, print what it returns, and end as a command does. Goes with version 0.3.

    Returns:
        The exit status, see [`run_to_status`].
    """

    def run() -> int:
        text = work()
        if text:
            print(text)
        return EXIT_OK

    return run_to_status(os.path.basename(sys.argv[0]), run)


class _Stopping:
    """The handler of SIGINT and SIGTERM while a command runs; it remembers that one came.

    What it raises does not always arrive: some libraries catch everything while they are imported. What handles signals
    later, such as a training, finds `received` at the handler before its own, and raises it again.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG002
        self.received = number
        raise Terminated("terminated") if number == signal.SIGTERM else KeyboardInterrupt

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Handle both signals while the block runs; SIGINT only where Python does, since a job may ignore it."""
        before: dict[int, Any] = {}
        try:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                before[signal.SIGINT] = signal.signal(signal.SIGINT, self)
        except ValueError:  # not the main thread, which alone may handle signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def leave_process_group() -> None:
    """End this process's part in PyTorch's process group, if it is in one.

    A process may abort after its work is done if a group's threads still run when Python ends: they let go of the last
    tensors that they sent. The threads end with the group, which lives as long as a model that was trained in it, often
    a part of a reference cycle. So call this where nothing of the work is referenced any more.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or "torch" not in sys.modules:  # PyTorch has left when its import was interrupted
        return
    if not distributed.is_available():
        return
    if distributed.is_initialized():
        distributed.destroy_process_group()
    gc.collect()


__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_SOME_FAILED",
    "EXIT_TERMINATED",
    "EXIT_USER_ERROR",
    "MENDABLE_ERRORS",
    "Parser",
    "Terminated",
    "UserError",
    "leave_process_group",
    "one_line",
    "run_script",
    "run_to_status",
]
