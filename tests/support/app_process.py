"""The app in a process of its own, as a person starts it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.commands import ENVIRONMENT, command
from support.two_processes import free_port

_SECONDS = 120


def wait_for_answer(address: str, process: subprocess.Popen) -> Any:
    """What an address answers, as soon as a process does."""
    import httpx

    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        assert process.poll() is None, f"it ended with status {process.returncode}"
        try:
            return httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}")


@dataclass
class RunningApp:
    """An app that runs."""

    address: str
    process: subprocess.Popen
    files: Path


@contextmanager
def running_app(folder: Path, *arguments: str) -> Iterator[RunningApp]:
    """`maskadapter app` on a free port, with `folder` as its folder for temporary files."""
    port = free_port()
    process = subprocess.Popen(
        command("app", "--port", port, "--device", "cpu", *arguments),
        env=ENVIRONMENT | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        wait_for_answer(address, process)
        yield RunningApp(address, process, folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


__all__ = ["RunningApp", "running_app", "wait_for_answer"]
