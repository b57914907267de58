"""What `maskadapter evaluate` does: open model and data, evaluate, write the results."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers.utils import logging

from ..data.loading import load_segmentation_dataset
from ..data.options import DatasetOptions
from ..evaluation.benchmarks import Benchmark, SceneSamples, get_benchmark
from ..evaluation.evaluator import EvaluationResult, evaluate_model
from ..evaluation.loading import load_predictor
from ..evaluation.options import EvaluationOptions, PredictorOptions
from ..evaluation.predictors import Method, Predictor
from ..evaluation.progress import ProgressStore
from ..evaluation.report import (
    describe_run,
    remove_old_pictures,
    report_text,
    summary_table,
    without_nan,
)
from ..files import folder_lock, write_json, write_text
from ..hub.card_results import update_model_card
from ..hub.errors import explaining
from ..hub.pushing import prepare_repository, push_finished_work
from ..loading import find_model
from .options import options_by_names

RESULTS = "results.json"
REPORT = "report.md"
SCENES = "scenes"
NUM_SCENES = 300


def run_evaluation(options: EvaluationOptions | None = None, **named: Any) -> str:
    """Evaluates a model as the command line says; every process calls it.

    Args:
        options: The command's options.
        **named: The same by the command's names for them, with ``_`` for ``-``, if `options` is None.

    Returns:
        A summary in Markdown on the main process, an empty string on others.

    Raises:
        ValueError: Something the user gave is wrong; the message says what.
        OSError: A file, or the output folder, which another run may be writing to, cannot be used.
        ImportError: A library is not there.
        ProgressError: The output folder holds the progress of another evaluation.
        HubError: The model cannot be fetched, or the Hub refuses the results, which is tried before measuring.
    """
    if options is None:
        options = options_by_names(EvaluationOptions, named)
    model = find_model(str(options.model))
    preset = None if options.data.benchmark is None else get_benchmark(options.data.benchmark)
    prediction = replace(
        options.prediction,
        tasks=tuple(options.prediction.tasks or (("semantic",) if preset is None else preset.tasks)),
        methods=tuple(Method.parse(text) for text in options.prediction.methods),
    )
    accelerator = Accelerator()
    folder = None if options.run.output_dir is None else Path(options.run.output_dir)
    if folder is not None and (folder / RESULTS).exists() and not options.run.overwrite:
        raise ValueError(f"{folder} holds results: choose another output folder, or replace them (--overwrite).")
    repository = _results_repository(model, folder, options.run.hub_model_id) if options.run.push_to_hub else None
    if repository is not None and accelerator.is_main_process:
        prepare_repository(repository)
    if not accelerator.is_main_process:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    data, split, prediction = _open_data(options, preset, prediction)
    with ExitStack() as locks:
        if folder is not None and accelerator.is_main_process:
            locks.enter_context(folder_lock(folder, "evaluate"))
        with explaining("load the model", model, prediction.revision):
            predictor = load_predictor(model, data.vocabulary, prediction)
        if folder is not None and accelerator.is_main_process and options.run.overwrite:
            ProgressStore(folder / "progress", {}).remove()
            remove_old_pictures(folder / "worst")
            for name in (RESULTS, REPORT):
                (folder / name).unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        result = evaluate_model(
            predictor,
            data,
            accelerator=accelerator,
            batch_size=options.run.batch_size,
            num_workers=options.run.num_workers,
            max_samples=options.data.max_samples,
            num_worst=options.run.num_worst,
            output_dir=folder,
            save_every=options.run.save_every,
        )
        if not accelerator.is_main_process:
            return ""
        return _write(options, preset, predictor, data, split, result, accelerator, repository)


def _open_data(
    options: EvaluationOptions, preset: Benchmark | None, prediction: PredictorOptions
) -> tuple[Any, str | None, PredictorOptions]:
    """The data, the name of their split, and the prediction's options with what a benchmark sets among them."""
    given = options.data
    is_described = options.reading != DatasetOptions()
    if preset is not None:
        if is_described or given.split:
            raise ValueError("A benchmark's layout is known: leave out the options that describe a data set.")
        data: Any = preset.open(str(given.data_dir), prediction.tasks, given.vocabulary)
        if preset.image_size is not None and prediction.shortest_edge is None and prediction.longest_edge is None:
            shortest, longest = preset.image_size
            prediction = replace(prediction, shortest_edge=shortest, longest_edge=longest)
        if prediction.resize_scores is None:
            prediction = replace(prediction, resize_scores=preset.resize_scores)
        return data, preset.split, prediction
    if given.dataset == SCENES:
        if is_described or given.vocabulary:
            raise ValueError(
                "The miniature scenes have their own classes and form: leave out the options that set them."
            )
        split = given.split or "test"
        return SceneSamples(split, given.max_samples or NUM_SCENES), split, prediction
    data = load_segmentation_dataset(str(given.dataset), given.vocabulary, options.reading, split=given.split)
    return data, given.split, prediction


def _write(
    options: EvaluationOptions,
    preset: Benchmark | None,
    predictor: Predictor,
    data: Any,
    split: str | None,
    result: EvaluationResult,
    accelerator: Accelerator,
    repository: str | None,
) -> str:
    """Write the results where the options say, publish them, and return the summary."""
    model, given, run = str(options.model), options.data, options.run
    published: dict[str, float] = {}
    if preset is not None:
        of_preset = preset.published if options.prediction.masks == "generator" else preset.published_annotated
        published = dict(of_preset) if "semantic" in predictor.tasks and given.max_samples is None else {}
    title = preset.title if preset is not None else str(data.name)
    content = describe_run(predictor, data, model)
    content |= {
        "benchmark": given.benchmark,
        "split": split,
        "max_samples": given.max_samples,
        "batch_size": run.batch_size,
        "num_processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "num_samples": result.num_samples,
        "num_resumed": result.num_resumed,
        "seconds": result.seconds,
        "published_mean_iou": published,
        "results": result.methods,
        "worst": result.worst,
    }
    folder = None if run.output_dir is None else Path(run.output_dir)
    if folder is not None:
        write_text(folder / REPORT, report_text(f"{model} on {title}", result.methods, published))
        write_json(folder / RESULTS, without_nan(content), indent=1)
        ProgressStore(folder / "progress", {}).remove()
    if run.model_card is not None:
        name = os.path.basename(os.path.normpath(model))
        source = given.benchmark or str(given.dataset)
        update_model_card(Path(run.model_card), name, title, source, split, result.methods)
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


__all__ = ["REPORT", "RESULTS", "run_evaluation"]
