"""What ``scripts/evaluate.py`` does: open model and data, evaluate, write the results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, AutoProcessor
from transformers.utils import logging

from ..data.loading import load_segmentation_dataset
from ..files import write_json, write_text
from ..hub.card_results import update_model_card
from ..hub.errors import explaining
from ..hub.pushing import prepare_repository, push_finished_work
from ..model.configuration_maskadapter import MaskAdapterConfig
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..model.vocabulary import Vocabulary
from .benchmarks import SceneSamples, get_benchmark
from .evaluator import EvaluationResult, evaluate_model
from .predictors import MaskAdapterPredictor, MaskSource, Method, Predictor, Task
from .progress import ProgressStore
from .report import describe_run, remove_old_pictures, report_text, summary_table, without_nan
from .universal_predictor import LabelMatching, UniversalPredictor

RESULTS = "results.json"
REPORT = "report.md"
SCENES = "scenes"
NUM_SCENES = 300


def load_predictor(
    model: str,
    vocabulary: Vocabulary,
    *,
    tasks: Sequence[Task] = ("semantic",),
    methods: Sequence[Method] = (),
    masks: MaskSource = "generator",
    shortest_edge: int | None = None,
    longest_edge: int | None = None,
    object_threshold: float | None = None,
    overlap_threshold: float | None = None,
    resize_scores: bool = False,
    text_transfer_panoptic: bool | None = None,
    label_matching: LabelMatching = "names",
    dtype: str = "float32",
) -> Predictor:
    """A model from a folder or the Hub, ready to be evaluated: one of this package or any universal segmenter.

    Args:
        model: Folder or Hub id.
        vocabulary: The data set's classes.
        tasks, methods, masks, object_threshold, overlap_threshold, resize_scores: See [`MaskAdapterPredictor`].
        shortest_edge, longest_edge: Size of the input in pixels instead of the model's.
        text_transfer_panoptic: Formula of a MAFT+ model's text transfer instead of the model's; the published numbers
            of MAFT+-L with Mask-Adapter were measured with it on A-150 and without it elsewhere.
        label_matching: See [`UniversalPredictor`].
        dtype: Type of the weights.

    Raises:
        ValueError, OSError: The model cannot be loaded, or options do not apply to it.
    """
    config = AutoConfig.from_pretrained(model)
    if isinstance(config, MaskAdapterConfig):
        if text_transfer_panoptic is not None:
            config.text_transfer_panoptic = text_transfer_panoptic
        segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(
            model, config=config, dtype=getattr(torch, dtype)
        )
        processor = MaskAdapterProcessor.from_pretrained(model)
        if shortest_edge is not None or longest_edge is not None:
            processor.image_processor.size = {
                "shortest_edge": shortest_edge or processor.image_processor.size["shortest_edge"],
                "longest_edge": longest_edge or processor.image_processor.size["longest_edge"],
            }
        return MaskAdapterPredictor(
            segmenter,
            processor,
            vocabulary,
            tasks=tasks,
            methods=methods,
            masks=masks,
            resize_scores=resize_scores,
            object_threshold=object_threshold,
            overlap_threshold=overlap_threshold,
        )
    if methods or masks != "generator":
        raise ValueError(
            f"{model} is a {config.model_type}, whose masks cannot be classified otherwise: leave out mask_embedding "
            "and masks."
        )
    universal = AutoModelForUniversalSegmentation.from_pretrained(model, dtype=getattr(torch, dtype))
    loader = AutoProcessor if config.model_type == "oneformer" else AutoImageProcessor
    return UniversalPredictor(
        universal, loader.from_pretrained(model), vocabulary, tasks=tasks, label_matching=label_matching
    )


def run_evaluation(
    *,
    model: str,
    benchmark: str | None = None,
    data_dir: str | None = None,
    dataset: str | None = None,
    vocabulary: str | None = None,
    task: Sequence[Task] | None = None,
    mask_embedding: Sequence[str] = (),
    masks: MaskSource = "generator",
    shortest_edge: int | None = None,
    longest_edge: int | None = None,
    object_threshold: float | None = None,
    overlap_threshold: float | None = None,
    resize_scores: bool | None = None,
    text_transfer_panoptic: bool | None = None,
    label_matching: LabelMatching = "names",
    dtype: str = "float32",
    output_dir: str | None = None,
    overwrite: bool = False,
    batch_size: int = 1,
    num_workers: int = 0,
    max_samples: int | None = None,
    num_worst: int = 8,
    save_every: int = 50,
    model_card: str | None = None,
    push_to_hub: bool = False,
    hub_model_id: str | None = None,
    split: str | None = None,
    reduce_labels: bool = False,
    ignore_unlisted: bool = False,
    streaming: bool = False,
    **data_options: Any,
) -> str:
    """Evaluates a model as the command line says; every process calls it.

    Args:
        model: Folder or Hub id.
        benchmark, data_dir: A benchmark's name, see `BENCHMARKS`, and the folder with its data; or
        dataset: a data set, as `load_segmentation_dataset` takes it, or ``"scenes"``: drawn scenes of the miniature
            world.
        vocabulary: The data set's classes; with a benchmark, a file of synonyms.
        task: What to measure; default: the benchmark's tasks, or semantic.
        mask_embedding: Methods to compare, see `Method.parse`.
        masks, object_threshold, overlap_threshold, resize_scores: See [`MaskAdapterPredictor`].
        shortest_edge, longest_edge, text_transfer_panoptic, label_matching, dtype: See `load_predictor`.
        output_dir: Folder for ``results.json``, ``report.md``, progress and pictures.
        overwrite: Whether to begin anew in a folder with results or progress.
        batch_size, num_workers, max_samples, num_worst, save_every: See `evaluate_model`.
        model_card: Model card whose metadata get the results.
        push_to_hub: Whether to publish ``output_dir``, and the results in the metadata of the model's card on the Hub.
        hub_model_id: The model's repository there; default: ``model``, if that is no folder.
        split, reduce_labels, ignore_unlisted, streaming, **data_options: Of `load_segmentation_dataset`.

    Returns:
        A summary in Markdown on the main process, an empty string on others.

    Raises:
        ValueError, OSError, ImportError: Something the user gave is wrong; the message says what.
        ProgressError: The output folder holds the progress of another evaluation.
        HubError: The model cannot be fetched, or the Hub refuses the results, which is tried before measuring.
    """
    preset = None if benchmark is None else get_benchmark(benchmark)
    tasks: tuple[Task, ...] = tuple(task or (("semantic",) if preset is None else preset.tasks))
    methods = [Method.parse(text) for text in mask_embedding]
    accelerator = Accelerator()
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None and (folder / RESULTS).exists() and not overwrite:
        raise ValueError(f"{folder} holds results: choose another output folder, or replace them (--overwrite).")
    repository = _results_repository(model, folder, hub_model_id) if push_to_hub else None
    if repository is not None and accelerator.is_main_process:
        prepare_repository(repository)
    if not accelerator.is_main_process:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    given = {name: value for name, value in data_options.items() if value is not None}
    data: Any
    if preset is not None:
        if given or split or reduce_labels or ignore_unlisted or streaming:
            raise ValueError("A benchmark's layout is known: leave out the options that describe a data set.")
        data = preset.open(str(data_dir), tasks, vocabulary)
        split = preset.split
        if preset.image_size is not None and shortest_edge is None and longest_edge is None:
            shortest_edge, longest_edge = preset.image_size
        resize_scores = preset.resize_scores if resize_scores is None else resize_scores
    elif dataset == SCENES:
        if given or vocabulary or reduce_labels or ignore_unlisted or streaming:
            raise ValueError(
                "The miniature scenes have their own classes and form: leave out the options that set them."
            )
        split = split or "test"
        data = SceneSamples(split, max_samples or NUM_SCENES)
    else:
        data = load_segmentation_dataset(
            str(dataset),
            vocabulary,
            split=split,
            streaming=streaming,
            reduce_labels=reduce_labels,
            ignore_unlisted=ignore_unlisted,
            **given,
        )
    with explaining("load the model", model):
        predictor = load_predictor(
            model,
            data.vocabulary,
            tasks=tasks,
            methods=methods,
            masks=masks,
            shortest_edge=shortest_edge,
            longest_edge=longest_edge,
            object_threshold=object_threshold,
            overlap_threshold=overlap_threshold,
            resize_scores=bool(resize_scores),
            text_transfer_panoptic=text_transfer_panoptic,
            label_matching=label_matching,
            dtype=dtype,
        )
    if folder is not None and accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            ProgressStore(folder / "progress", {}).remove()
            remove_old_pictures(folder / "worst")
            for name in (RESULTS, REPORT):
                (folder / name).unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    result = evaluate_model(
        predictor,
        data,
        accelerator=accelerator,
        batch_size=batch_size,
        num_workers=num_workers,
        max_samples=max_samples,
        num_worst=num_worst,
        output_dir=folder,
        save_every=save_every,
    )
    if not accelerator.is_main_process:
        return ""
    published: dict[str, float] = {}
    if preset is not None:
        of_preset = preset.published if masks == "generator" else preset.published_annotated
        published = dict(of_preset) if "semantic" in tasks and max_samples is None else {}
    title = preset.title if preset is not None else str(data.name)
    content = describe_run(predictor, data, model)
    content |= {
        "benchmark": benchmark,
        "split": split,
        "max_samples": max_samples,
        "batch_size": batch_size,
        "num_processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "num_samples": result.num_samples,
        "num_resumed": result.num_resumed,
        "seconds": result.seconds,
        "published_mean_iou": published,
        "results": result.methods,
        "worst": result.worst,
    }
    if folder is not None:
        write_text(folder / REPORT, report_text(f"{model} on {title}", result.methods, published))
        write_json(folder / RESULTS, without_nan(content), indent=1)
        ProgressStore(folder / "progress", {}).remove()
    if model_card is not None:
        name = os.path.basename(os.path.normpath(model))
        update_model_card(Path(model_card), name, title, benchmark or str(dataset), split, result.methods)
    if repository is not None and folder is not None:
        push_finished_work(folder, repository, kind="results", commit_message=f"Upload results on {title}")
    return _summary(result, published, folder)


def _results_repository(model: str, folder: Path | None, hub_model_id: str | None) -> str:
    if folder is None:
        raise ValueError("push_to_hub publishes the output folder: give output_dir, too.")
    if hub_model_id is None and Path(model).exists():
        raise ValueError(f"{model} is a folder: name the model on the Hub that the results belong to (hub_model_id).")
    return hub_model_id or model


def _summary(result: EvaluationResult, published: dict[str, float], folder: Path | None) -> str:
    number = result.num_samples - result.num_resumed
    lines = [
        summary_table(result.methods, published),
        "",
        f"{result.num_samples} samples, {number} of them in this run: {result.seconds:.0f} s.",
    ]
    if folder is not None:
        lines.append(f"Results: {folder / RESULTS}, {folder / REPORT}")
    if result.pictures:
        lines.append(f"Worst samples: {result.pictures[0].parent}")
    return "\n".join(lines)


__all__ = ["REPORT", "RESULTS", "load_predictor", "run_evaluation"]
