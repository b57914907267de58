"""A script run by two real processes, as `torchrun` would start them, on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import hf_maskadapter


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_by_two_processes(script: str, *arguments: str, timeout: float = 240) -> None:
    """Run a Python file by ranks 0 and 1, and assert that both succeed."""
    import accelerate

    modules = (
        Path(__file__).parents[1],
        Path(hf_maskadapter.__file__).parents[1],
        Path(accelerate.__file__).parents[1],
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, modules)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
