"""Peak memory of this process and of fresh ones."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_CLEAR_REFS = Path("/proc/self/clear_refs")


def can_measure_peaks() -> bool:
    """Whether the operating system tells peaks of resident memory (Linux)."""
    return _CLEAR_REFS.exists()


def peak_memory(reset: bool = False) -> int:
    """The largest resident memory of this process so far, in bytes; with ``reset``, from now on (Linux).

    Raises:
        RuntimeError: The operating system does not tell.
    """
    if reset:
        _CLEAR_REFS.write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status does not tell the peak memory (VmHWM)")


def release_freed_memory() -> None:
    """Give memory that was freed back to the operating system, so that it does not hide what is allocated next."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU C library's
    if trim is not None:
        trim(0)


def run_in_fresh_process(module: str, task: dict[str, Any]) -> Any:
    """Runs ``python -m module`` with a task as JSON, and returns the JSON of the last line that it prints.

    Raises:
        RuntimeError: It failed; the message holds what it printed.
    """
    run = subprocess.run(
        [sys.executable, "-m", module, json.dumps(task)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if run.returncode:
        raise RuntimeError(f"Measuring {json.dumps(task)} in a fresh process failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])
