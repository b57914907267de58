"""A process that computes one thing as often as it is asked, and the other end of the line to it."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lab.benchmarks.builds import ROOT, Build
from lab.benchmarks.process_memory import can_measure_peaks, peak_memory, release_freed_memory


@dataclass(frozen=True)
class Cost:
    """What one computation took.

    Attributes:
        cpu: Seconds of all threads, and of processes that it started and that have ended.
        wall: Seconds.
        memory: How much higher its peak of resident memory was than the memory before, in bytes; 0 where the operating
            system does not tell.
    """

    cpu: float
    wall: float
    memory: int


class Contender:
    """A process of a build in which a function is set up, to be called in turn with others.

    Args:
        build: the build.
        function: `"module:name"` below `lab.benchmarks.rows`, of a function that takes the inputs and keyword options
            and returns a function without arguments, which is what is measured.
        options: the keyword options.
        inputs: file of the inputs, saved by PyTorch.
        threads: of PyTorch; 0 leaves that to it.

    Raises:
        RuntimeError: if setting up fails; the message holds what the process said.
    """

    def __init__(self, build: Build, function: str, options: Mapping[str, Any], inputs: Path, threads: int = 1):
        self.name = f"{function} in {build.name}"
        task = {"function": function, "options": dict(options), "inputs": str(inputs), "threads": threads}
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [str(build.python), "-m", __name__, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=build.environment(threads),
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, result: Path | None = None) -> Cost:
        """Compute once.

        Args:
            result: file for the result.

        Raises:
            RuntimeError: if it fails.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"result": None if result is None else str(result)}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, which is none, tells why
        return Cost(**self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} failed:\n{self._errors.read().strip()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _cpu_seconds() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _measured(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    tells_peaks = can_measure_peaks()
    release_freed_memory()
    memory = peak_memory(reset=True) if tells_peaks else 0
    cpu, wall = _cpu_seconds(), time.perf_counter()
    result = call()
    costs = {"cpu": _cpu_seconds() - cpu, "wall": time.perf_counter() - wall}
    return result, costs | {"memory": peak_memory() - memory if tells_peaks else 0}


def _serve(task: Mapping[str, Any]) -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    import torch

    if task["threads"]:
        torch.set_num_threads(task["threads"])
    module, _, name = task["function"].partition(":")
    set_up = getattr(importlib.import_module(f"lab.benchmarks.rows.{module}"), name)
    call = set_up(torch.load(task["inputs"]), **task["options"])
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        path = json.loads(line)["result"]
        result, costs = _measured(call)
        if path is not None:
            torch.save(result, path)
        del result
        print(json.dumps(costs), file=answers, flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
