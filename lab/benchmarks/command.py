"""`lab metrics`, `lab speed` and `lab paper`: the measurements behind the project's tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from hf_maskadapter import miniature
from hf_maskadapter.cli.errors import EXIT_OK
from hf_maskadapter.cli.options import Command, positive
from hf_maskadapter.cli.training import told_as_interruption
from hf_maskadapter.data.options import option, option_group
from lab.benchmarks import comparison, gpu, paper, precision, speed
from lab.benchmarks.model_sizes import ModelSize
from lab.benchmarks.paper_report import report
from lab.benchmarks.paper_settings import PARTS, Settings
from lab.benchmarks.rows.catalogue import row_names
from lab.benchmarks.rows.definitions import TINY, Scale
from lab.benchmarks.speed_cases import CASES


@dataclass(kw_only=True)
class MetricsOptions:
    """How `MeanIoU` is compared with the Hub's metric."""

    mean_iou_script: str | None = option("local copy of the Hub's mean_iou.py, or its folder", None, metavar="PATH")
    images: int = option("images in each timed evaluation", 20, parse=positive)
    rounds: int = option("timed evaluations of each metric", 9, parse=positive)
    memory_images: tuple[int, ...] = option("numbers of images whose memory is compared", (50, 200, 800))


def run_metrics(options: MetricsOptions) -> int:
    """Print the table, and return the exit status."""
    from lab.benchmarks import metrics  # needs Hugging Face Evaluate

    images = options.memory_images
    print(metrics.run(options.mean_iou_script, options.images, options.rounds, memory_images=images))
    return EXIT_OK


@dataclass(kw_only=True)
class SpeedOptions:
    """What is timed."""

    cases: tuple[str, ...] = option("what to measure", tuple(CASES), choices=lambda: tuple(CASES))
    sizes: tuple[int, ...] = option(
        "longer sides of the picture in pixels; the first is used where something else varies", (896,), parse=positive
    )
    masks: tuple[int, ...] = option("numbers of masks, likewise", (250,), parse=positive)
    classes: tuple[int, ...] = option("numbers of classes, likewise", (150, 847), parse=positive)
    measuring: speed.Options = option_group(speed.Options, "how")
    output_dir: Path | None = option("folder for Markdown, JSON and plots; what is there is kept", None, metavar="DIR")
    quick: bool = option("a trial: tiny model, small picture, one round", False)
    baseline: str | None = option("compare this build with another commit's", None, metavar="COMMIT")
    rows: tuple[str, ...] | None = option("with --baseline: which rows of the table", None, choices=row_names)
    comparing: comparison.Options = option_group(comparison.Options, "with --baseline, how")

    def __post_init__(self) -> None:
        if self.rows is not None and self.baseline is None:
            raise ValueError("--rows chooses from the comparison with another build: give --baseline COMMIT, too.")
        if self.quick:
            self.sizes, self.masks, self.classes = (128,), (20,), (9,)
            self.measuring = replace(self.measuring, model_size="tiny", repeats=1)


def run_speed(options: SpeedOptions) -> int:
    """Print the table, and return the exit status."""
    if options.baseline is not None:
        scale = TINY if options.quick else Scale(options.measuring.model_size)
        repeats, output_dir = options.measuring.repeats, options.output_dir
        rows = options.rows or ()
        print(comparison.compare(rows, options.baseline, repeats, options.comparing, output_dir, scale))
        return EXIT_OK
    numbers = (options.sizes, options.masks, options.classes)
    print(speed.run(options.cases, *numbers, options.measuring, options.output_dir))
    return EXIT_OK


@dataclass(kw_only=True)
class GpuOptions:
    """What is measured on a GPU."""

    device: str = option("a CUDA device, or cpu for a trial", "cuda")
    model_size: ModelSize = option("of CLIP and generator", "large")
    minutes: float = option("after which nothing more is begun", 5.0)
    output_dir: Path | None = option("folder for Markdown and JSON", None, metavar="DIR")
    quick: bool = option("a trial: tiny model, small picture", False)


def run_gpu(options: GpuOptions) -> int:
    """Print the table, and return the exit status."""
    scale = TINY if options.quick else Scale(options.model_size)
    print(gpu.run(options.device, scale, options.minutes, options.output_dir, log=_tell))
    return EXIT_OK


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class PaperOptions:
    """Which of the paper's claims are tested, and how thoroughly."""

    output_dir: Path = option("folder for results; given again, the command goes on", metavar="DIR")
    model: str | None = option("a miniature; by default the embedded one", None, metavar="DIR")
    parts: tuple[str, ...] = option("what is tested", PARTS, choices=lambda: PARTS)
    threads: int = option("threads of PyTorch; on a shared core one is fastest", 1, parse=positive)
    settings: Settings = option_group(Settings, "how much")
    quick: bool = option("a trial: few scenes and steps", False)

    def __post_init__(self) -> None:
        if self.quick:
            self.settings = replace(
                self.settings, scenes=6, training_scenes=16, seeds=2, steps=3, mixed_steps=2, ablation_steps=2
            )


def run_paper(options: PaperOptions) -> int:
    """Print the tables, and return the exit status."""
    torch.set_num_threads(options.threads)
    segmenter, processor = miniature.load_miniature(options.model)
    benchmark = paper.PaperBenchmark(segmenter, processor.tokenizer, options.settings, options.output_dir)
    with told_as_interruption("give the command again to go on"):
        results = benchmark.run(options.parts)
    print(report(results, options.settings))
    return EXIT_OK


def run_precision(options: precision.Options) -> int:
    """Print the table, and return the exit status."""
    torch.set_num_threads(1)
    print(precision.run(options, lambda line: print(line, file=sys.stderr, flush=True)))
    return EXIT_OK


@dataclass(kw_only=True)
class ExportedOptions:
    """What is measured of exported models."""

    folders: tuple[Path, ...] = option("exported embedded models", (), metavar="DIR", positional=True)
    scenes: int = option("drawn scenes of the test split", 100, parse=positive)
    pictures: Path | None = option("folder of photographs, whose label maps are compared", None, metavar="DIR")
    num_pictures: int = option("how many of them", 20, parse=positive)
    speed: bool = option("time image tower and adapter of a large model with random weights instead", False)
    model_size: Literal["large", "base", "tiny"] = option("with --speed: size of FC-CLIP", "large")
    threads: tuple[int, ...] = option("with --speed: processor threads", (1, 2), parse=positive)
    rounds: int = option("with --speed: rounds, whose median counts", 3, parse=positive)
    masks: int = option("with --speed: masks that the adapter embeds", 40, parse=positive)


def run_exported(options: ExportedOptions) -> int:
    """Print the table, and return the exit status."""
    from lab.benchmarks import exported, exported_speed  # need the extra export

    if options.speed:
        print(exported_speed.measure(options.model_size, options.threads, options.rounds, options.masks))
    else:
        torch.set_num_threads(1)
        print(exported.measure(list(options.folders), options.scenes, options.pictures, options.num_pictures))
    return EXIT_OK


COMMANDS = (
    Command(
        name="precision",
        summary="what bfloat16 and int8 cost in accuracy",
        description="Measure masks named rightly, mean IoU and panoptic quality in fp32, and the differences of "
        "bfloat16 and int8 from it, each with its 95 % interval over pictures.",
        options=precision.Options,
        run=run_precision,
    ),
    Command(
        name="exported",
        summary="quality and speed of exported models against PyTorch",
        description="Measure quality and speed of exported models against PyTorch.",
        options=ExportedOptions,
        run=run_exported,
        extra="export",
    ),
    Command(
        name="metrics",
        summary="time and memory of MeanIoU against the Hub's mean_iou",
        description="Measure time and memory of MeanIoU against the Hub's mean_iou.",
        options=MetricsOptions,
        run=run_metrics,
    ),
    Command(
        name="speed",
        summary="time and memory against a dense implementation of the published way",
        description="Measure time and memory against a dense implementation of the published way.",
        options=SpeedOptions,
        run=run_speed,
    ),
    Command(
        name="gpu",
        summary="pictures a second, share of the peak, memory and correctness on a GPU, in minutes",
        description="Measure pictures a second, share of the peak, memory and correctness on a GPU, in minutes.",
        options=GpuOptions,
        run=run_gpu,
    ),
    Command(
        name="paper",
        summary="the paper's claims, tested again in the miniature world",
        description="Test the paper's claims again in the miniature world.",
        options=PaperOptions,
        run=run_paper,
    ),
)

__all__ = ["COMMANDS"]
