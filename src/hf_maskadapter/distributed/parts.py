"""Which part of the pictures a process takes, and how processes that share nothing but a folder work side by side.

Each process has a folder below `parts/` in the output folder, with its journal, a lock, how far it is, and a mark when
it has ended. There are no messages: a process goes by what lies there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..exchange.journals import PARTS
from ..files import LOCK, FolderInUseError, folder_lock, write_text

PROGRESS = "count.json"
FINISHED = "finished.json"
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, accelerate launch
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun; a batch script alone has no step's number
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)
_PROBING = 5.0  # seconds in which a lock that is only looked at is let go of
_POLLING = 0.1


@dataclass(frozen=True)
class Part:
    """One of several parts of the pictures.

    Args:
        index: which, from 0.
        of: how many there are.
        local_index: which on this machine, where a launcher tells.

    Raises:
        ValueError: if there is no such part.
    """

    index: int
    of: int
    local_index: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise ValueError(f"There is no part {self.index} of {self.of}: parts are counted from 0.")

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.index:05d}-of-{self.of:05d}"

    def takes(self, unit: int) -> bool:
        """Whether the pictures of a unit, by its number in the source, are this part's."""
        return unit % self.of == self.index


def part_from_environment(environment: Mapping[str, str] = os.environ) -> Part | None:
    """The part that torchrun, accelerate, srun or mpirun gave this process; `None` if there is but one process.

    Raises:
        ValueError: if the launcher's variables are no numbers.
    """
    for rank, size, local in _LAUNCHERS:
        if rank in environment and size in environment:
            try:
                part = Part(int(environment[rank]), int(environment[size]), int(environment.get(local, -1)))
            except ValueError as error:
                raise ValueError(f"{rank} and {size} in the environment do not name a process: {error}") from error
            local_index = None if part.local_index == -1 else part.local_index
            return Part(part.index, part.of, local_index) if part.of > 1 else None
    return None


def folder_of(folder: Path, part: Part) -> Path:
    """Where a part's journal lies."""
    return folder / PARTS / part.name


@contextlib.contextmanager
def part_lock(folder: Path, part: Part, purpose: str) -> Iterator[None]:
    """Be the only process that works on a part, and keep runs of the whole folder away.

    Raises:
        FolderInUseError: if another process works on this part or on the whole folder.
    """
    with folder_lock(folder_of(folder, part), purpose):
        (folder_of(folder, part) / FINISHED).unlink(missing_ok=True)
        if (folder / LOCK).exists():  # its owner has died, or assembles what parts have made: wait and see
            with waiting_lock(folder, purpose, _PROBING):
                pass
        yield


@contextlib.contextmanager
def whole_lock(folder: Path, purpose: str, wait: float = 0.0) -> Iterator[None]:
    """Be the only process that works on a folder, none of whose parts is worked on.

    Args:
        folder: the folder.
        purpose: see [`folder_lock`].
        wait: seconds to wait for the folder.

    Raises:
        FolderInUseError: if another process works on it, or on a part.
    """
    with waiting_lock(folder, purpose, wait):
        for path in sorted((folder / PARTS).glob("*")):
            if (path / LOCK).exists():
                with waiting_lock(path, purpose, wait):
                    pass
        yield


@contextlib.contextmanager
def waiting_lock(folder: Path, purpose: str, wait: float) -> Iterator[None]:
    """As [`folder_lock`], which waits some seconds for another process."""
    end = time.monotonic() + wait
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(folder_lock(folder, purpose))
                break
            except FolderInUseError:
                if time.monotonic() > end:
                    raise
                time.sleep(_POLLING)
        yield


def mark_finished(folder: Path, part: Part, pictures: int, failed: int) -> None:
    """Tell that a part has ended, with so many pictures and so many that could not be read."""
    write_text(folder_of(folder, part) / FINISHED, json.dumps({"pictures": pictures, "failed": failed}))


def finished_parts(folder: Path, of: int) -> dict[str, int] | None:
    """The sums of what `of` parts told at their end; `None` if not all have ended."""
    sums = {"pictures": 0, "failed": 0}
    for index in range(of):
        path = folder_of(folder, Part(index, of)) / FINISHED
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        sums = {name: sums[name] + content[name] for name in sums}
    return sums


def note_progress(folder: Path, part: Part, done: int, total: int | None) -> None:
    """Tell the other processes how far this one is: pictures that it has done, of so many of the whole source."""
    with contextlib.suppress(OSError):  # only a bar depends on it
        write_text(folder_of(folder, part) / PROGRESS, json.dumps([done, total]))


def read_progress(folder: Path, of: int) -> tuple[int, int | None]:
    """Pictures that `of` processes have done in this run, and how many the source has, where one has told."""
    done, total = 0, None
    for index in range(of):
        with contextlib.suppress(OSError, ValueError):
            own, size = json.loads((folder_of(folder, Part(index, of)) / PROGRESS).read_text())
            done, total = done + own, size if size is not None else total
    return done, total


__all__ = [
    "Part",
    "finished_parts",
    "folder_of",
    "mark_finished",
    "note_progress",
    "part_from_environment",
    "part_lock",
    "read_progress",
    "waiting_lock",
    "whole_lock",
]
