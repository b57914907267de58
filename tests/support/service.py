"""A service on loopback, in this process or one of its own, and how tests ask it."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from hf_maskadapter.serving.application import create_application
from hf_maskadapter.serving.running import bind
from hf_maskadapter.serving.service import Service
from support.commands import ENVIRONMENT, command

TIMEOUT = 60
PROJECT = Path(__file__).parents[2]
LABELS = ["sand", "water, sea", "dotted yellow star", "checked pink cross", "plain cyan triangle"]
"""What the scene shows, with a synonym."""


@contextlib.contextmanager
def running(service: Service) -> Iterator[httpx.Client]:
    """A client of a service that a thread of this process runs."""
    bound = bind("127.0.0.1", 0)
    config = uvicorn.Config(create_application(service), log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    client = httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=TIMEOUT)
    try:
        yield client
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)
        client.close()
    assert not thread.is_alive()


@dataclass
class Process:
    """`maskadapter serve` in a process of its own."""

    process: subprocess.Popen
    address: str
    log: list[str]


@contextlib.contextmanager
def served(*options: Any, environment: dict[str, str] | None = None) -> Iterator[Process]:
    """Start `maskadapter serve` at a free port, and end it by force if that is still needed."""
    process = subprocess.Popen(
        command("serve", "--port", 0, *options),
        env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    log: list[str] = []
    address = ""
    try:
        for line in process.stderr:
            log.append(line)
            if "listening at " in line:
                address = line.split("listening at ")[1].strip()
                break
        assert address, "".join(log)
        reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
        reader.start()
        yield Process(process, address, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(TIMEOUT)
        reader.join(TIMEOUT)


def as_file(image: Image.Image, kind: str = "PNG", **keywords: Any) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **keywords)
    return buffer.getvalue()


def scene(width: int = 128, height: int = 96) -> Image.Image:
    """A drawn scene that the embedded model knows."""
    with Image.open(PROJECT / "examples" / "scene.png") as image:
        return image.convert("RGB").resize((width, height))


def wait_until(condition: Any, seconds: float = TIMEOUT) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def mask_of(record: dict[str, Any]) -> np.ndarray:
    """The mask of a segment in an answer, decoded by COCO's own tools."""
    from pycocotools import mask as coco

    return coco.decode(record["segmentation"]).astype(bool)


def detail(response: httpx.Response) -> str:
    """The sentence of a refusal."""
    content = json.loads(response.content)
    assert set(content) == {"detail"}
    return content["detail"]
