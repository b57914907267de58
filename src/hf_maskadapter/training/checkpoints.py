"""Step checkpoints on disk: complete or not there, verified before use, the oldest removed.

A checkpoint is a folder `step-00001000` with a manifest of its files' sizes and SHA-256 checksums. It is written under
another name, synchronised to disk, and renamed last; so whatever interrupts the writing leaves only what nobody reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any

from ..files import write_json

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = ".partial-"
_DISCARDED = ".discarded-"

logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError, ValueError):
    """A checkpoint cannot be written or used; the message says which, why, and how to go on."""


class CheckpointStore:
    """The checkpoints of a run.

    The processes of a run share the folder; one of them, the main process, makes it and everything in it complete.

    Args:
        directory: folder of the checkpoints; made when the first one is written.
        limit: keep so many of the latest checkpoints; `None` keeps all.

    Raises:
        ValueError: if the limit is less than one.
    """

    def __init__(self, directory: Path, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"At least one checkpoint must be kept, got a limit of {limit}.")
        self.directory = directory
        self.limit = limit

    def path(self, step: int) -> Path:
        """Folder of the checkpoint after so many optimiser steps."""
        return self.directory / f"step-{step:08d}"

    def partial_path(self, step: int) -> Path:
        """Folder in which the processes write that checkpoint, before [`CheckpointStore.commit`]."""
        return self.directory / f"{_PARTIAL}{self.path(step).name}"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, ascending; damaged ones among them."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def begin(self, step: int) -> Path:
        """Make an empty folder to write a checkpoint in. For the main process."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        partial = self.partial_path(step)
        partial.mkdir()
        return partial

    def commit(self, step: int, keep: Container[int | None] = ()) -> None:
        """Turn what was written since [`CheckpointStore.begin`] into a checkpoint, and remove those beyond the limit.

        Those of later steps go, too: a run only passes them if they are damaged. For the main process.

        Args:
            step: the checkpoint's step.
            keep: steps of checkpoints that stay whatever the limit, such as the best one's.
        """
        partial, final = self.partial_path(step), self.path(step)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        facts = {path.relative_to(partial).as_posix(): _file_facts(path, sync=True) for path in files}
        write_json(partial / MANIFEST, {"step": step, "files": facts}, indent=2, sync=True)
        for folder in {path.parent for path in files} | {partial}:
            _sync_folder(folder)
        for later in self.steps():
            if later >= step:
                self._discard(self.path(later))
        partial.rename(final)
        _sync_folder(self.directory)
        self._prune(keep)

    def abort(self, step: int) -> None:
        """Remove what was written since [`CheckpointStore.begin`]. For the main process."""
        shutil.rmtree(self.partial_path(step), ignore_errors=True)

    def verify(self, path: Path) -> None:
        """Check that a checkpoint is complete and undamaged.

        Raises:
            CheckpointError: if it is not, with the file that differs.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            expected = dict(manifest["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"The checkpoint {path} is damaged: its {MANIFEST} cannot be read ({error})."
            ) from error
        for name, facts in expected.items():
            try:
                found = _file_facts(path / name)
            except OSError as error:
                raise CheckpointError(f"The checkpoint {path} is damaged: {name} cannot be read ({error}).") from error
            if found != facts:
                raise CheckpointError(f"The checkpoint {path} is damaged: {name} is not what was written.")

    def latest(self) -> Path | None:
        """The latest undamaged checkpoint; damaged ones after it are named in a warning. `None` if there is none."""
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                self.verify(path)
            except CheckpointError as error:
                logger.warning("%s Trying the one before it.", error)
                continue
            return path
        return None

    def choose(self, wanted: str | os.PathLike[str] | None) -> Path | None:
        """The checkpoint that a run goes on from.

        Args:
            wanted: `"latest"`, a checkpoint's folder, here or elsewhere, or `None` for a run that starts.

        Returns:
            The checkpoint; `None` if the run starts.

        Raises:
            CheckpointError: if it is damaged, or other checkpoints here would get mixed up with the run's.
        """
        if wanted is None:
            if self.steps():
                raise CheckpointError(
                    f"{self.directory} holds checkpoints of another run: go on with it (--resume-from-checkpoint "
                    "latest), or choose another output folder."
                )
            return None
        if str(wanted) == "latest":
            path = self.latest()
            if path is None:
                logger.warning("There is no checkpoint to go on from in %s: starting.", self.directory)
            return path
        path = Path(wanted)
        self.verify(path)
        is_own = path.resolve().parent == self.directory.resolve()
        later = [self.path(step).name for step in self.steps() if is_own and self.path(step).name > path.name]
        if later:
            raise CheckpointError(
                f"There are checkpoints after {path.name}, which would get mixed up with those of a run that goes on "
                f"from it: move {', '.join(later)} away from {self.directory}, or choose another output folder."
            )
        return path

    def _prune(self, keep: Container[int | None]) -> None:
        if self.limit is None:
            return
        for step in self.steps()[: -self.limit]:
            if step not in keep:
                self._discard(self.path(step))

    def _discard(self, path: Path) -> None:
        discarded = path.with_name(_DISCARDED + path.name)
        shutil.rmtree(discarded, ignore_errors=True)
        path.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)

    def _sweep(self) -> None:
        for entry in self.directory.iterdir():
            if entry.name.startswith((_PARTIAL, _DISCARDED)):
                shutil.rmtree(entry, ignore_errors=True)


def describe_write_error(step: int, directory: Path, error: BaseException, write_again: str) -> CheckpointError:
    """The error for a checkpoint that could not be written.

    Args:
        step: its step.
        directory: where the checkpoints lie.
        error: what went wrong.
        write_again: how the user goes on.
    """
    return CheckpointError(
        f"The checkpoint of step {step} could not be written to {directory} ({type(error).__name__}: {error}). Earlier "
        f"checkpoints are untouched. Free space or check permissions, then {write_again}."
    )


def _file_facts(path: Path, sync: bool = False) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return {"size": path.stat().st_size, "sha256": digest}


def _sync_folder(path: Path) -> None:
    """Make renames in a folder durable, where the system knows how."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


__all__ = ["CheckpointError", "CheckpointStore", "describe_write_error"]
