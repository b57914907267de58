"""What a service makes of a CPU second, compared with the pipeline in the same run; and whether its memory grows.

Pipeline and clients take turns, round after round, and medians of rounds are compared: so whatever else the machine
does meets both. What the clients' own process takes is not counted.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from hf_maskadapter.cli.options import positive
from hf_maskadapter.data.options import option
from hf_maskadapter.data.scenes import SceneDataset
from hf_maskadapter.hub.markdown import markdown_table
from hf_maskadapter.loading import load_segmenter
from hf_maskadapter.model.post_processing_maskadapter import TASKS
from lab.serving.clients import Load, ask, form
from lab.serving.server import Server, served

LABELS = ("sky", "grass", "brick", "sand", "water", "wood", "striped red star", "dotted blue circle")
_DIFFERENT_PICTURES = 16
_SAMPLES = 20
_PATIENT = ("--time-limit", "600")  # a busy machine may take its time; what counts is CPU seconds


@dataclass(kw_only=True)
class LoadOptions:
    """What is asked, by how many, how often."""

    model: str | None = option("as maskadapter serve; default: the embedded one", None, metavar="NAME")
    clients: tuple[int, ...] = option("numbers of clients that ask at a time", (4, 16, 64), parse=positive)
    batch_sizes: tuple[int, ...] = option("of the pipeline; the best one counts", (1, 4, 8, 16), parse=positive)
    requests: int = option("pictures of each measurement; at least two for each client", 64, parse=positive)
    rounds: int = option("rounds, whose median counts", 3, parse=positive)
    size: tuple[int, int] = option("width and height of the pictures", (384, 384), parse=positive)
    task: str = option("what kind of result", "semantic", choices=lambda: TASKS)
    threads: int = option("of PyTorch, of both", 1, parse=positive)
    memory_requests: int = option("instead of all this, watch the memory over so many requests by 16 clients", 0)


def pictures(size: tuple[int, int]) -> list[bytes]:
    """Drawn scenes as JPEG files, which cost the reading that photographs do."""
    files = []
    for number in range(_DIFFERENT_PICTURES):
        scene = Image.fromarray(SceneDataset("test", _DIFFERENT_PICTURES).scene(number).picture)
        buffer = io.BytesIO()
        scene.resize(size).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def measure(options: LoadOptions) -> str:
    """The comparison as a Markdown table."""
    torch.set_num_threads(options.threads)
    files = pictures(options.size)
    bodies = [form(file, LABELS, {"task": options.task}) for file in files]
    segmenter = load_segmenter("miniature" if options.model is None else options.model, device="cpu")
    alone: dict[int, list[float]] = {size: [] for size in options.batch_sizes}
    under_load: dict[int, list[float]] = {number: [] for number in options.clients}
    seconds: dict[int, list[float]] = {number: [] for number in options.clients}
    refused = 0
    with served(options.model, options.threads, _PATIENT) as server:
        ask(server, bodies, _DIFFERENT_PICTURES, 4)
        _pipeline(segmenter, files, _DIFFERENT_PICTURES, 4, options.task)
        for number_of_round in range(options.rounds):
            for size in options.batch_sizes:
                alone[size].append(_pipeline(segmenter, files, options.requests, size, options.task))
            for number in options.clients:
                rate, load = _service(server, bodies, options.requests, number)
                under_load[number].append(rate)
                seconds[number] += load.seconds
                refused += load.refused
            both = {"pipeline": alone, "service": under_load}
            last = {name: {key: round(values[-1], 2) for key, values in of.items()} for name, of in both.items()}
            print(f"round {number_of_round + 1}: {last}", file=sys.stderr, flush=True)
    best = max(alone, key=lambda size: statistics.median(alone[size]))
    reference = statistics.median(alone[best])
    rows: list[list[Any]] = [
        [f"pipeline, batches of {size}", f"{statistics.median(rates):.2f}", _share(rates, reference), "", ""]
        for size, rates in alone.items()
    ]
    for number, rates in under_load.items():
        rows.append(
            [
                f"service, {number} clients",
                f"{statistics.median(rates):.2f}",
                _share(rates, reference),
                f"{1000 * statistics.median(seconds[number]):.0f} ms",
                f"{1000 * sorted(seconds[number])[int(0.95 * len(seconds[number]))]:.0f} ms",
            ]
        )
    header = ["", "pictures per CPU second", "of the pipeline's best", "p50", "p95"]
    width, height = options.size
    return (
        f"{markdown_table(header, rows)}\n\n{options.task}, pictures of {width}x{height}, {len(LABELS)} labels, "
        f"{options.threads} thread(s), medians of {options.rounds} rounds of {options.requests}; {refused} refused"
    )


def watch_memory(options: LoadOptions) -> str:
    """The memory of a service as requests go by, as a Markdown table."""
    files = pictures(options.size)
    bodies = [form(file, LABELS, {"task": options.task}) for file in files]
    each = max(options.memory_requests // _SAMPLES, 1)
    rows = []
    with served(options.model, options.threads, _PATIENT) as server:
        done = 0
        while done < options.memory_requests:
            ask(server, bodies, min(each, options.memory_requests - done), 16)
            done += min(each, options.memory_requests - done)
            rows.append([done, f"{server.resident_bytes() / 2**20:.1f} MiB"])
            print(f"{done} requests: {rows[-1][1]}", file=sys.stderr, flush=True)
    return markdown_table(["requests", "memory of the service"], rows)


def _share(rates: Sequence[float], reference: float) -> str:
    return f"{100 * statistics.median(rates) / reference:.0f} %"


def _pipeline(segmenter: Any, files: Sequence[bytes], requests: int, batch_size: int, task: str) -> float:
    """Pictures per CPU second of this process, from files to segments."""
    items = [{"image": files[number % len(files)]} for number in range(requests)]
    start = time.process_time()
    segmenter(items, candidate_labels=list(LABELS), batch_size=batch_size, subtask=task, return_segments=True)
    return requests / (time.process_time() - start)


def _service(server: Server, bodies: Sequence[tuple[bytes, str]], requests: int, clients: int) -> tuple[float, Load]:
    """Pictures per CPU second of the service's process."""
    requests = max(requests, 2 * clients)
    start = server.cpu_seconds()
    load = ask(server, bodies, requests, clients)
    return requests / (server.cpu_seconds() - start), load


__all__ = ["LoadOptions", "measure", "pictures", "watch_memory"]
