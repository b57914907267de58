"""How a model is measured, as dataclasses whose fields are the options of `maskadapter evaluate`, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.options import DatasetOptions, option, option_group

Task = Literal["semantic", "panoptic", "instance"]
MaskSource = Literal["generator", "annotation"]
LabelMatching = Literal["names", "order"]


@dataclass(kw_only=True)
class PredictorOptions:
    """What [`hf_maskadapter.evaluation.load_predictor`] makes of a model: what is measured, and how it predicts.

    `methods` are [`hf_maskadapter.evaluation.Method`]s, or texts that `Method.parse` reads.
    """

    tasks: tuple[Task, ...] = option("what to measure (default: the benchmark's, or semantic)", (), flags=("--task",))
    methods: tuple[Any, ...] = option(
        "ways to classify masks, side by side: adapter, crop, pooling, pooling-hard, pooling-area, pooling-any "
        "(default: the model's own)",
        (),
        flags=("--mask-embedding",),
        metavar="METHOD",
        parse=str,
    )
    masks: MaskSource = option(
        "whose masks are classified; annotation: the annotated segments (upper bound)", "generator"
    )
    shortest_edge: int | None = option("the input's shorter side in pixels, instead of the model's", None)
    longest_edge: int | None = option("the input's longer side at most, instead of the model's", None)
    object_threshold: float | None = option("of panoptic results, instead of the model's", None)
    overlap_threshold: float | None = option("of panoptic results, instead of the model's", None)
    resize_scores: bool | None = option(
        "compute semantic scores at the input's size and resize them, instead of the masks (default: as published for "
        "the benchmark)",
        None,
    )
    text_transfer_panoptic: bool | None = option(
        "formula of a MAFT+ model's text transfer, instead of the model's; the published numbers of MAFT+-L with "
        "Mask-Adapter were measured with it on A-150 and without it elsewhere",
        None,
    )
    label_matching: LabelMatching = option("how the labels of a model with fixed labels become classes", "names")
    dtype: Literal["float32", "bfloat16", "float16", "int8"] = option(
        "type of the weights; int8: of the ConvNeXt blocks' MLPs, on a CPU", "float32"
    )
    revision: str | None = option("version of a model on the Hub", None, flags=("--model-revision",), metavar="NAME")


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
class EvaluationOptions:
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


__all__ = [
    "EvaluationOptions",
    "LabelMatching",
    "MaskSource",
    "MeasuredData",
    "PredictorOptions",
    "RunOptions",
    "Task",
]
