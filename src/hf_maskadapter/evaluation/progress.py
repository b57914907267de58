"""What an evaluation has counted so far, on disk, so that it can be stopped at any moment and go on.

Each run of an evaluation is a *generation*. It begins with a base file, which holds everything that earlier generations
counted; each process adds a file of its own and replaces it from time to time. The next generation's base is the sum of
the base and all process files. Every file appears complete (temporary name, then rename), a base makes all files before
it obsolete, and each file lists the samples that it counts: so a sample is counted once, whenever a run is killed and
with however many processes it goes on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_json
from .counts import MethodCounts

_NAME = re.compile(r"generation-(\d+)-(base|process-\d+)\.json")


class ProgressError(RuntimeError, ValueError):
    """Saved progress cannot be used; the message says why and how to go on."""


@dataclass
class Progress:
    """Samples that were counted, and the counts.

    Attributes:
        done: Indices of the samples.
        counts: Counts of each method, by its name.
        scores: (score, index, sample id) of the worst samples, worst first.
    """

    done: list[int] = field(default_factory=list)
    counts: dict[str, MethodCounts] = field(default_factory=dict)
    scores: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, other: Progress) -> None:
        """Adds the progress of other samples in place.

        Raises:
            ProgressError: A sample is in both.
        """
        twice = set(self.done) & set(other.done)
        if twice:
            raise ProgressError(f"Samples were counted twice, for example number {min(twice)}.")
        self.done = self.done + other.done
        for name, counts in other.counts.items():
            if name in self.counts:
                self.counts[name].add(counts)
            else:
                self.counts[name] = counts
        self.scores = sorted(self.scores + other.scores)

    def state_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {name: counts.state_dict() for name, counts in self.counts.items()}
        return {"done": self.done, "counts": counts, "scores": self.scores}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Progress:
        """Progress from the result of `state_dict`."""
        return cls(
            done=list(state["done"]),
            counts={name: MethodCounts.from_state_dict(counts) for name, counts in state["counts"].items()},
            scores=[(score, index, sample_id) for score, index, sample_id in state["scores"]],
        )


class ProgressStore:
    """Progress files in a folder that the processes of an evaluation share.

    Args:
        folder: The folder; made when it is first written to.
        fingerprint: What must be equal for progress to be of use: model, data, options, versions.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]):
        self.folder = folder
        self.fingerprint = json.loads(json.dumps(fingerprint))

    def begin(self) -> None:
        """Sums up what earlier runs counted; to be called by the main process alone, before the others `load`.

        Raises:
            ProgressError: The folder holds progress of another evaluation, or a damaged file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self._files()
        generation = self._latest(files)
        total = Progress()
        if generation is not None:
            for number, part in files:
                if number == generation:
                    total.add(self._read(number, part))
        generation = 0 if generation is None else generation + 1
        self._write(generation, "base", total)
        for number, part in files:
            if number < generation:
                self._path(number, part).unlink(missing_ok=True)

    def load(self) -> Progress:
        """What was counted before this run; to be called by every process after `begin`."""
        self._generation = self._latest(self._files())
        assert self._generation is not None
        return self._read(self._generation, "base")

    def save(self, process_index: int, progress: Progress) -> None:
        """Replaces what a process has counted in this run."""
        assert self._generation is not None
        self._write(self._generation, f"process-{process_index}", progress)

    def remove(self) -> None:
        """Deletes all progress."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[tuple[int, str]]:
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]), match[2]) for match in matches if match)

    @staticmethod
    def _latest(files: Sequence[tuple[int, str]]) -> int | None:
        return max((number for number, part in files if part == "base"), default=None)

    def _path(self, generation: int, part: str) -> Path:
        return self.folder / f"generation-{generation:06d}-{part}.json"

    def _read(self, generation: int, part: str) -> Progress:
        path = self._path(generation, part)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            progress = Progress.from_state_dict(content["progress"])
            fingerprint = content["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProgressError(
                f"The progress file {path} is damaged ({type(error).__name__}: {error}). Delete the folder "
                f"{self.folder} to begin anew."
            ) from error
        if fingerprint != self.fingerprint:
            keys = {**self.fingerprint, **fingerprint}
            different = [key for key in keys if self.fingerprint.get(key) != fingerprint.get(key)]
            raise ProgressError(
                f"{self.folder} holds the progress of another evaluation; what differs: {', '.join(different)}. Choose "
                "another output folder, or begin anew (overwrite)."
            )
        return progress

    def _write(self, generation: int, part: str, progress: Progress) -> None:
        write_json(self._path(generation, part), {"fingerprint": self.fingerprint, "progress": progress.state_dict()})


__all__ = ["Progress", "ProgressError", "ProgressStore"]
