"""`maskadapter evaluate`: mean IoU, panoptic quality and mask average precision of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.options import DatasetOptions, option, option_group
from ..evaluation.options import PredictorOptions
from .errors import EXIT_OK
from .options import Command


@dataclass(kw_only=True)
class MeasuredData:
    """What is measured on: a benchmark, or any data set."""

    benchmark: str | None = option("one of the benchmarks that --list shows; needs --data-dir", None, metavar="NAME")
    data_dir: str | None = option(
        "folder with the benchmark's download, or what maskadapter prepare made of it", None, metavar="DIR"
    )
    dataset: str | None = option(
        "a data set instead of a benchmark: folder, COCO-style JSON file, Hub id, or scenes: 300 (--max-samples) drawn "
        "scenes of the miniature world",
        None,
        metavar="PATH_OR_ID",
    )
    vocabulary: str | None = option(
        "the data set's classes: a file, a label set or a list; with --benchmark a file of synonyms for them",
        None,
        metavar="NAMES_OR_FILE",
    )
    split: str | None = option("the split to evaluate", None, metavar="NAME")
    max_samples: int | None = option("evaluate the first so many samples only", None)


@dataclass(kw_only=True)
class RunOptions:
    """Where results go, and how the work is done."""

    output_dir: Path | None = option(
        "folder for results, progress and pictures of the worst samples", None, metavar="DIR"
    )
    overwrite: bool = option("begin anew and replace results in the output folder", False)
    batch_size: int = option("pictures of equal size at a time", 1)
    num_workers: int = option("processes that read pictures", 0)
    num_worst: int = option("worst samples to draw", 8)
    save_every: int = option("samples between two states of progress", 50)
    model_card: Path | None = option(
        "Markdown file whose metadata get the results (eval_results)", None, metavar="FILE"
    )
    push_to_hub: bool = option("publish the output folder in the model's repository", False)
    hub_model_id: str | None = option("that repository, as owner/name (default: --model)", None, metavar="NAME")


@dataclass(kw_only=True)
class EvaluateOptions:
    """Which model, on what, how, and where the results go."""

    list_benchmarks: bool = option("show the benchmarks and what to download for each", False, flags=("--list",))
    model: str | None = option(
        "folder or Hub id of a model of this package or of any universal segmenter", None, metavar="DIR_OR_ID"
    )
    data: MeasuredData = option_group(MeasuredData, "data")
    reading: DatasetOptions = option_group(
        DatasetOptions, "how the data set is read", {"revision": ("--dataset-revision", "--revision")}
    )
    prediction: PredictorOptions = option_group(PredictorOptions, "what to measure, and how")
    run: RunOptions = option_group(RunOptions, "the run")

    def __post_init__(self) -> None:
        if self.list_benchmarks:
            return
        if not self.model:
            raise ValueError("give --model")
        if (self.data.benchmark is None) == (self.data.dataset is None):
            raise ValueError("give either --benchmark with --data-dir, or --dataset")
        if self.data.benchmark is not None and self.data.data_dir is None:
            raise ValueError("--benchmark needs --data-dir; --list tells what it must hold")


def run(options: EvaluateOptions) -> int:
    """Measure, and print a summary; or list the benchmarks."""
    if options.list_benchmarks:
        from ..evaluation.benchmarks import BENCHMARKS

        print("\n\n".join(f"{name}\n  {entry.instructions()}" for name, entry in BENCHMARKS.items()))
        return EXIT_OK
    from .evaluation import run_evaluation

    summary = run_evaluation(options)
    if summary:
        print(summary)
    return EXIT_OK


COMMAND = Command(
    name="evaluate",
    summary="measure a model: mean IoU, panoptic quality, mask average precision",
    description="Measure a model on a benchmark or on one's own data, on one or many processes (accelerate launch -m "
    "hf_maskadapter.cli evaluate ...). An interrupted evaluation goes on when the same command is given again.",
    options=EvaluateOptions,
    run=run,
)
