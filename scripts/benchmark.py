#!/usr/bin/env python
"""Measure and print the tables of the README.

python scripts/benchmark.py metrics
python scripts/benchmark.py speed --quick
python scripts/benchmark.py paper --output-dir paper
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure and print the tables of the README.")
    commands = parser.add_subparsers(dest="command", required=True)
    metrics = commands.add_parser("metrics", help="time and memory of MeanIoU against the Hub's mean_iou")
    metrics.add_argument("--mean-iou-script", metavar="PATH", help="local copy of the Hub's mean_iou.py, or its folder")
    metrics.add_argument("--images", type=int, default=20, help="images in each timed evaluation (default: 20)")
    metrics.add_argument("--rounds", type=int, default=9, help="timed evaluations of each metric (default: 9)")
    metrics.add_argument(
        "--memory-images",
        type=int,
        nargs="*",
        default=[50, 200, 800],
        help="numbers of images whose memory is compared (default: 50 200 800)",
    )
    _add_speed(commands)
    _add_paper(commands)
    return parser.parse_args(arguments)


def _add_speed(commands: Any) -> None:
    speed = commands.add_parser("speed", help="time and memory against a dense implementation of the published way")
    speed.add_argument("--cases", nargs="+", metavar="CASE", help="what to measure (default: all)")
    for name, default, what in (
        ("sizes", [896], "longer sides of the picture in pixels, such as 640 to 1536"),
        ("masks", [250], "numbers of masks, such as 50 to 1000"),
        ("classes", [150, 847], "numbers of classes, such as 1 to 1000"),
    ):
        help_text = f"{what}; the first is used where something else varies (default: {' '.join(map(str, default))})"
        speed.add_argument(f"--{name}", type=int, nargs="+", metavar="N", default=default, help=help_text)
    speed.add_argument("--model-size", choices=("large", "base", "tiny"), default="large", help="default: large")
    speed.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    speed.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32", help="default: fp32")
    speed.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    speed.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: seconds of all threads, for a busy machine"
    )
    speed.add_argument("--no-memory", action="store_true", help="do not measure memory")
    speed.add_argument(
        "--annotations", nargs="+", metavar="DIR", help="folders of label or panoptic PNGs to draw masks from"
    )
    speed.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="folder for Markdown, JSON and plots; what is there is kept"
    )
    speed.add_argument("--quick", action="store_true", help="a trial: tiny model, small picture, one round")


def _add_paper(commands: Any) -> None:
    paper = commands.add_parser("paper", help="the paper's claims, tested again in the miniature world")
    paper.add_argument("--output-dir", type=Path, metavar="DIR", required=True, help="folder for results; resumable")
    paper.add_argument("--model", metavar="DIR", help="a miniature (default: the embedded one)")
    paper.add_argument("--parts", nargs="+", metavar="PART", help="main stages maps sources withheld (default: all)")
    for name, default, what in (
        ("scenes", 300, "test scenes"),
        ("training-scenes", 8000, "scenes to train adapters on"),
        ("seeds", 3, "adapters of each kind"),
        ("steps", 2000, "steps of stage 1"),
        ("mixed-steps", 100, "steps of stage 2"),
        ("ablation-steps", 300, "steps of adapters with other numbers of maps, and with stage 2 only"),
        ("threads", 1, "threads of PyTorch; on a shared core one is fastest"),
    ):
        paper.add_argument(f"--{name}", type=int, metavar="N", default=default, help=f"{what} (default: {default})")
    paper.add_argument("--quick", action="store_true", help="a trial: few scenes and steps")


def _run_paper(parsed: argparse.Namespace) -> str:
    import torch

    from hf_maskadapter import miniature
    from lab.benchmarks import paper
    from lab.benchmarks.paper_report import report

    if unknown := [part for part in parsed.parts or () if part not in paper.PARTS]:
        raise SystemExit(f"error: there is no part {', '.join(unknown)}; the parts are {', '.join(paper.PARTS)}")
    if parsed.quick:
        parsed.scenes, parsed.training_scenes, parsed.seeds = 6, 16, 2
        parsed.steps, parsed.mixed_steps, parsed.ablation_steps = 3, 2, 2
    names = ("scenes", "training_scenes", "seeds", "steps", "mixed_steps", "ablation_steps")
    counts = {name: getattr(parsed, name) for name in names}
    if min(*counts.values(), parsed.threads) < 1:
        raise SystemExit("error: scenes, seeds, steps and threads are at least 1")
    settings = paper.Settings(**counts)
    torch.set_num_threads(parsed.threads)
    try:
        segmenter, processor = miniature.load_miniature(parsed.model)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    try:
        benchmark = paper.PaperBenchmark(segmenter, processor.tokenizer, settings, parsed.output_dir)
        results = benchmark.run(parsed.parts or paper.PARTS)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error
    return report(results, settings)


def _run_speed(parsed: argparse.Namespace) -> str:
    from lab.benchmarks import speed
    from lab.benchmarks.speed_cases import CASES

    unknown = [case for case in parsed.cases or () if case not in CASES]
    if unknown:
        raise SystemExit(f"error: there is no case {', '.join(unknown)}; the cases are {', '.join(CASES)}")
    numbers = [*parsed.sizes, *parsed.masks, *parsed.classes, parsed.repeats]
    if min(numbers) < 1:
        raise SystemExit("error: sizes, masks, classes and repeats are at least 1")
    if parsed.quick:
        parsed.model_size, parsed.sizes, parsed.masks, parsed.classes, parsed.repeats = "tiny", [128], [20], [9], 1
    options = speed.Options(
        parsed.model_size,
        parsed.device,
        parsed.dtype,
        parsed.repeats,
        parsed.clock,
        not parsed.no_memory,
        None if parsed.annotations is None else tuple(parsed.annotations),
    )
    cases = parsed.cases or tuple(CASES)
    try:
        return speed.run(cases, parsed.sizes, parsed.masks, parsed.classes, options, parsed.output_dir)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parsed = parse_arguments(arguments)
    if parsed.command == "metrics":
        from lab.benchmarks import metrics

        numbers = tuple(parsed.memory_images)
        print(metrics.run(parsed.mean_iou_script, parsed.images, parsed.rounds, memory_images=numbers))
    else:
        print(_run_speed(parsed) if parsed.command == "speed" else _run_paper(parsed))
    return 0


if __name__ == "__main__":
    # The evaluate.py beside this file must not hide Hugging Face Evaluate.
    here = Path(__file__).resolve().parent
    sys.path = [str(here.parent), *(path for path in sys.path if Path(path).resolve() != here)]
    sys.exit(main())
