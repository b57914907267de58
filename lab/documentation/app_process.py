"""The app in a process of its own, as a person starts it: for its pictures in the documentation, and for its tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hf_maskadapter

_SECONDS = 240  # on a busy machine; it takes about ten


@dataclass
class RunningApp:
    """An app that runs.

    Args:
        address: of the page.
        process: its process.
        files: its folder for temporary files.
    """

    address: str
    process: subprocess.Popen[str]
    files: Path


@contextmanager
def running_app(folder: Path, *arguments: str) -> Iterator[RunningApp]:
    """`maskadapter app` on a free port.

    Args:
        folder: its folder for temporary files.
        arguments: further ones of the command.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    source = str(Path(hf_maskadapter.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_maskadapter.cli", "app", "--port", str(port), "--device", "cpu", *arguments],
        env=environment,
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


def wait_for_answer(address: str, process: subprocess.Popen[str]) -> Any:
    """What an address answers, an `httpx.Response`, as soon as a process answers.

    Raises:
        RuntimeError: if the process ends, or does not answer in time.
    """
    import httpx

    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise RuntimeError(f"The process ended with status {process.returncode}.")
        try:
            return httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"Nothing answers at {address}.")


__all__ = ["RunningApp", "running_app", "wait_for_answer"]
