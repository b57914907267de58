"""A service in a process of its own, and what the operating system tells of it (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import hf_maskadapter

_SECONDS_TO_START = 300


@dataclass(frozen=True)
class Server:
    """A running service.

    Args:
        pid: of its process.
        host: where it listens.
        port: likewise.
    """

    pid: int
    host: str
    port: int

    def cpu_seconds(self) -> float:
        """Seconds of all its threads, and of the processes that it started and that have ended."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in after_name[11:15]) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory that it holds now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
        raise RuntimeError("/proc/PID/status does not tell the memory (VmRSS)")


@contextlib.contextmanager
def served(model: str | None, threads: int, options: Sequence[str] = ()) -> Iterator[Server]:
    """Run `maskadapter serve` on loopback while the block runs.

    Args:
        model: as `--model`.
        threads: of PyTorch.
        options: further ones of the command.

    Raises:
        RuntimeError: if it does not start.
    """
    package = str(Path(hf_maskadapter.__file__).parents[1])
    command = [sys.executable, "-m", "hf_maskadapter.cli", "serve", "--port", "0", *options]
    environment = os.environ | {"PYTHONPATH": package, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command + ([] if model is None else ["--model", model]),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = _address(process)
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # empties its log
        try:
            yield Server(process.pid, address.hostname or "", address.port or 0)
        finally:
            process.terminate()
            process.wait(_SECONDS_TO_START)
            reader.wait(_SECONDS_TO_START)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[str]):
    assert process.stderr is not None
    end = time.monotonic() + _SECONDS_TO_START
    said: list[str] = []
    while time.monotonic() < end:
        line = process.stderr.readline()
        if not line:
            break
        said.append(line)
        if "listening at " in line:
            return urlsplit(line.split("listening at ")[1].strip())
    raise RuntimeError("The service did not start:\n" + "".join(said))


__all__ = ["Server", "served"]
