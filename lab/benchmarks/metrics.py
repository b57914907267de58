"""Time and memory of `MeanIoU` against the Hub's `mean_iou`, measured in one run.

The opponent is the Hub's script if a local copy is named, and otherwise a metric of the same data flow:
`evaluate.Metric` with `datasets.Image` features, which writes every map to disk as a picture, decodes all of them at
the end and counts them image by image with histograms.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.benchmarks.process_memory import can_measure_peaks, peak_memory, run_in_fresh_process


@dataclass
class Timing:
    """Milliseconds per image, medians over rounds.

    Attributes:
        dtype: Type of the predicted maps.
        streaming: `hf_maskadapter.evaluation.MeanIoU`.
        spooling: The opponent.
        ratio: Median over rounds of the opponent's time divided by the streaming metric's in the same round.
    """

    dtype: str
    streaming: float
    spooling: float
    ratio: float


@dataclass
class Memory:
    """Growth of the resident memory at its peak and of files on disk, in MiB, by number of images."""

    num_images: int
    streaming: float
    spooling: float
    spooled: float


def draw_maps(num_images: int, size: int, num_labels: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of a predicted and an annotated uint8 map that look like segmentations rather than noise.

    Annotations are areas of 32×32 pixels, some of them ignored (255); predictions are the same areas, displaced, with
    one pixel in fifty wrong.
    """
    rng = np.random.default_rng(seed)
    cells = size // 32 + 1
    for _ in range(num_images):
        blocks = rng.integers(0, num_labels, (cells, cells), np.uint8)
        blocks[rng.random(blocks.shape) < 0.02] = 255
        reference = np.kron(blocks, np.ones((32, 32), np.uint8))[:size, :size]
        prediction = np.roll(reference, rng.integers(-3, 4, 2), (0, 1))
        wrong = (rng.random(reference.shape) < 0.02) | (prediction == 255)
        prediction = np.where(wrong, rng.integers(0, num_labels, reference.shape, np.uint8), prediction)
        yield prediction, reference


def load_spooling_metric(script: str | None, cache_dir: str) -> Any:
    """The Hub's metric from a local copy of its script (file or folder), or a metric of the same data flow."""
    import datasets
    import evaluate

    if script is not None:
        return evaluate.load(script, cache_dir=cache_dir)

    class SpoolingMeanIoU(evaluate.Metric):
        """Mean IoU by per-image histograms over maps that were written to disk as pictures."""

        def _info(self) -> evaluate.MetricInfo:
            picture = datasets.Image()
            return evaluate.MetricInfo(
                description="",
                citation="",
                inputs_description="",
                features=datasets.Features({"predictions": picture, "references": picture}),
            )

        def _compute(self, predictions: Any, references: Any, num_labels: int, ignore_index: int) -> dict[str, Any]:
            areas = np.zeros((3, num_labels))
            for prediction, reference in zip(map(np.array, predictions), map(np.array, references), strict=True):
                counted = reference != ignore_index
                prediction, reference = prediction[counted], reference[counted]
                for row, values in enumerate((prediction[prediction == reference], prediction, reference)):
                    areas[row] += np.histogram(values, bins=num_labels, range=(0, num_labels - 1))[0]
            with np.errstate(invalid="ignore"):
                return {"mean_iou": np.nanmean(areas[0] / (areas[1] + areas[2] - areas[0]))}

    return SpoolingMeanIoU(cache_dir=cache_dir)


def measure_times(
    script: str | None, num_images: int, rounds: int, size: int, num_labels: int, dtypes: tuple[str, ...]
) -> list[Timing]:
    """Evaluates the same maps with both metrics in turn.

    Raises:
        RuntimeError: The two metrics disagree.
    """
    from hf_maskadapter.evaluation import MeanIoU

    options = {"num_labels": num_labels, "ignore_index": 255}
    predictions, references = (list(maps) for maps in zip(*draw_maps(num_images, size, num_labels), strict=True))
    timings = []
    with tempfile.TemporaryDirectory() as cache_dir, _quiet():
        metrics = {"streaming": MeanIoU(), "spooling": load_spooling_metric(script, cache_dir)}
        for dtype in dtypes:
            converted = [prediction.astype(dtype) for prediction in predictions]
            seconds: dict[str, list[float]] = {name: [] for name in metrics}
            for turn in range(rounds + 1):
                values = {}
                for name, metric in sorted(metrics.items(), reverse=turn % 2 == 1):
                    start = time.perf_counter()
                    result = metric.compute(predictions=converted, references=references, **options)
                    seconds[name].append(time.perf_counter() - start)
                    values[name] = float(result["mean_iou"])
                if values["streaming"] != values["spooling"]:
                    raise RuntimeError(f"The metrics disagree: {values}.")
            measured = {name: values[1:] for name, values in seconds.items()}  # the first round warms up
            timings.append(
                Timing(
                    dtype=dtype,
                    streaming=1e3 * statistics.median(measured["streaming"]) / num_images,
                    spooling=1e3 * statistics.median(measured["spooling"]) / num_images,
                    ratio=statistics.median(
                        slow / fast for slow, fast in zip(measured["spooling"], measured["streaming"], strict=True)
                    ),
                )
            )
    return timings


def measure_memory(script: str | None, numbers: tuple[int, ...], size: int, num_labels: int) -> list[Memory]:
    """Evaluates growing numbers of images, each in a fresh process, one image at a time."""
    rows = []
    for num_images in numbers:
        growth = {}
        for name in ("streaming", "spooling"):
            task = {"name": name, "script": script, "num_images": num_images, "size": size, "num_labels": num_labels}
            growth[name] = run_in_fresh_process(__name__, task)
        rows.append(
            Memory(
                num_images=num_images,
                streaming=growth["streaming"]["memory"],
                spooling=growth["spooling"]["memory"],
                spooled=growth["spooling"]["disk"],
            )
        )
    return rows


def _measure_growth(task: dict[str, Any]) -> dict[str, float]:
    from hf_maskadapter.evaluation import MeanIoU

    options = {"num_labels": task["num_labels"], "ignore_index": 255}
    with tempfile.TemporaryDirectory() as cache_dir, _quiet():
        if task["name"] == "streaming":
            metric = MeanIoU(cache_dir=cache_dir)
        else:
            metric = load_spooling_metric(task["script"], cache_dir)

        def evaluate_images(number: int) -> int:
            for prediction, reference in draw_maps(number, task["size"], task["num_labels"]):
                metric.add_batch(predictions=[prediction], references=[reference])
            written = sum(path.stat().st_size for path in Path(cache_dir).rglob("*") if path.is_file())
            metric.compute(**options)
            return written

        evaluate_images(2)
        start = peak_memory(reset=True)
        written = evaluate_images(task["num_images"])
        return {"memory": (peak_memory() - start) / 2**20, "disk": written / 2**20}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def report(timings: list[Timing], memory: list[Memory], opponent: str, size: int, num_labels: int) -> str:
    """The measurements as Markdown."""
    import datasets
    import evaluate

    versions = f"numpy {np.__version__}, datasets {datasets.__version__}, evaluate {evaluate.__version__}"
    lines = [
        f"Mean IoU on {size}×{size} maps, {num_labels} classes. Opponent: {opponent}.",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.",
        "",
        "| predicted maps | MeanIoU, ms/image | opponent, ms/image | faster |",
        "|---|---|---|---|",
    ]
    lines += [f"| {t.dtype} | {t.streaming:.2f} | {t.spooling:.2f} | {t.ratio:.1f}× |" for t in timings]
    if memory:
        lines += [
            "",
            "| images | MeanIoU, memory grows by | opponent, memory grows by | opponent, on disk |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {m.num_images} | {m.streaming:.1f} MiB | {m.spooling:.1f} MiB | {m.spooled:.1f} MiB |" for m in memory
        ]
    return "\n".join(lines)


def run(
    script: str | None = None,
    num_images: int = 20,
    rounds: int = 9,
    size: int = 512,
    num_labels: int = 150,
    memory_images: tuple[int, ...] = (50, 200, 800),
) -> str:
    """Measures and returns the report.

    Args:
        script: Local copy of the Hub's ``mean_iou.py`` or its folder; None for the imitation of its data flow.
        num_images: Images in each timed evaluation.
        rounds: Timed evaluations of each metric, in turn, after one to warm up.
        size: Height and width of the maps in pixels.
        num_labels: Classes, at most 255.
        memory_images: Numbers of images whose memory is compared.
    """
    if script is None:
        opponent = "a metric of the Hub's data flow (pictures spooled to disk, decoded, counted by histograms)"
    else:
        opponent = "the Hub's mean_iou script"
    timings = measure_times(script, num_images, rounds, size, num_labels, ("uint8", "int64"))
    memory = measure_memory(script, memory_images, size, num_labels) if can_measure_peaks() else []
    return report(timings, memory, opponent, size, num_labels)


if __name__ == "__main__":
    print(json.dumps(_measure_growth(json.loads(sys.argv[1]))))
