"""What `maskadapter train` does: open model and data, train, save the result; and what it shares with `pretrain`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, set_seed
from safetensors.torch import load_file
from torch import Tensor

from ..data import (
    DataError,
    SegmentationDataset,
    SegmentationStream,
    TrainingTransform,
    collate_training_samples,
    create_training_loader,
)
from ..data.loading import load_segmentation_dataset
from ..files import folder_lock, replacing_folder, write_json
from ..hub.adapter_weights import add_adapter, save_adapter_weights
from ..hub.cards import CARD_NAME, training_card
from ..hub.errors import explaining
from ..hub.pushing import prepare_repository, push_finished_work
from ..loading import find_model, keep_vocabularies
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..provenance import versions
from ..training.adapter_stages import AdapterStage, GroundTruthWarmup, MixedMaskTraining
from ..training.checkpoints import CheckpointStore
from ..training.generator_stage import MaskGeneratorTraining
from ..training.interruption import StopSignals, TrainingInterrupted, ValidationInterrupted
from ..training.optimization import LearningRateSchedule, parameter_groups
from ..training.options import DataOptions, OptimizationOptions, RunOptions, StartOptions, TrainingOptions, flat
from ..training.stage import SegmenterStage, TrainingStage
from ..training.trainer import (
    CHECKPOINTS_FOLDER,
    EMA_WEIGHTS,
    MODEL_WEIGHTS,
    Trainer,
    TrainerSettings,
    TrainingResult,
)
from .errors import Terminated

OPTIONS_FILE = "training_arguments.json"
RESULT_FILE = "training_result.json"
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"

logger = logging.getLogger(__name__)

Dataset = SegmentationDataset | SegmentationStream

STAGES: dict[str, Callable[..., SegmenterStage]] = {
    stage.name: stage for stage in (GroundTruthWarmup, MixedMaskTraining, MaskGeneratorTraining)
}
"""The stages on a segmenter by name."""


def run_training(options: TrainingOptions) -> TrainingResult:
    """Train as the options say, and save the trained model.

    The output folder then holds `model/` (the complete model with its processor and card), `adapter/` (the adapter
    alone, if that was trained), `checkpoints/`, `log.jsonl` (a line for each step), `training_arguments.json` and
    `training_result.json`. To be called by every process.

    Raises:
        DataError: if the data cannot be read or do not fit the vocabulary; the message names the sample.
        CheckpointError: if a checkpoint cannot be written or used.
        HubError: if the model cannot be fetched, or the Hub refuses an upload, which is tried before training.
        TrainingInterrupted: after Ctrl-C or SIGTERM, when a checkpoint has been saved.
        ValueError: if options do not fit the model or the data.
    """
    optimization, outcome = options.optimization, options.outcome
    accelerator = make_accelerator(options.run, optimization, optimization.gradient_accumulation_steps)
    batch_size = optimization.batch_size_per_process(accelerator.num_processes)
    with claimed_output(options.run, accelerator):
        if outcome.push_to_hub and accelerator.is_main_process:
            prepare_repository(outcome.hub_model_id or "", private=outcome.hub_private or None)
        set_seed(optimization.seed)
        segmenter, processor = load_model(options)
        data = options.data
        dataset = open_dataset(data, data.dataset, data.train_split, data.max_train_samples)
        max_steps = number_of_steps(options, dataset)
        segmenter.to(accelerator.device)
        stage = build_stage(options, segmenter, segmenter.encode_vocabulary(dataset.vocabulary, processor))
        if options.cache.feature_cache is not None and isinstance(stage, AdapterStage):
            stage.keep_features(options.cache.feature_cache, options.cache.max_bytes, accelerator.num_processes)
        if isinstance(stage, MaskGeneratorTraining) or segmenter.config.training_vocabulary is None:
            segmenter.config.training_vocabulary = [list(entry.synonyms) for entry in dataset.vocabulary]
        loader = create_training_loader(
            dataset,
            build_transform(options, segmenter, processor),
            batch_size,
            seed=optimization.seed,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            shuffle_buffer=data.shuffle_buffer,
            collate=partial(collate_training_samples, mask_labels=False),
            num_workers=data.num_workers,
            pin_memory=accelerator.device.type == "cuda",
        )
        schedule = LearningRateSchedule(
            optimization.lr_scheduler or "constant",
            max_steps,
            min(optimization.warmup_steps, max_steps),
            optimization.milestone_steps(max_steps),
            optimization.lr_gamma,
            optimization.lr_power,
        )
        signals = StopSignals()
        trainer = Trainer(
            stage,
            loader,
            make_optimizer(stage, optimization),
            schedule,
            accelerator,
            make_settings(
                options.run,
                optimization,
                max_steps,
                gradient_accumulation_steps=optimization.gradient_accumulation_steps,
                eval_steps=options.validation.eval_steps,
                fingerprint=options.fingerprint(),
            ),
            build_validation(options, segmenter, processor, accelerator, signals),
            signals,
        )
        if accelerator.is_main_process:
            logger.info(describe(options, stage, dataset, max_steps, accelerator))
        result = train(trainer, options.run, flat(options))
        save_result(options, trainer, segmenter, processor, dataset, result)
    return result


def make_accelerator(run: RunOptions, optimization: OptimizationOptions, accumulation: int = 1) -> Accelerator:
    """What runs the training on one or many processes, with the trackers that were asked for.

    Accelerate leaves out silently what is not installed.

    Raises:
        ImportError: if a tracker cannot be imported.
        ValueError: if fp16 is asked for on a CPU, where Accelerate would train in fp32 without a word.
    """
    accelerator = Accelerator(
        gradient_accumulation_steps=accumulation,
        mixed_precision=optimization.mixed_precision,
        log_with=list(run.report_to) or None,
        project_dir=run.output_dir,
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("mixed_precision fp16 is not for a CPU: choose bf16 or no.")
    found = {str(tracker) for tracker in accelerator.log_with}
    missing = [name for name in run.report_to if name != "all" and name not in found]
    if missing:
        raise ImportError(
            f"report_to: {', '.join(missing)} cannot be imported; install it (pip install ...) or leave it out."
        )
    return accelerator


@contextlib.contextmanager
def claimed_output(run: RunOptions, accelerator: Accelerator) -> Iterator[None]:
    """Be the only run that writes to the output folder, from finding out whether it can go on there to its end.

    Raises:
        CheckpointError: if the checkpoint to go on from cannot be used, or the folder holds those of another run.
        FolderInUseError: if another run writes to the folder.
        ValueError: on the other processes, if the main one raised an error.
    """
    failure: list[Any] = [None]
    with contextlib.ExitStack() as held:
        error: Exception | None = None
        if accelerator.is_main_process:
            try:
                output_dir = Path(run.output_dir)
                CheckpointStore(output_dir / CHECKPOINTS_FOLDER).choose(run.resume_from_checkpoint)
                held.enter_context(folder_lock(output_dir, "train"))
            except (OSError, ValueError) as found:
                error, failure[0] = found, str(found)
        broadcast_object_list(failure)
        if error is not None:
            raise error
        if failure[0] is not None:
            raise ValueError(failure[0])
        try:
            yield
        finally:
            accelerator.end_training()  # at the very end, since the processes cannot speak with each other after it


@contextlib.contextmanager
def told_as_interruption(advice: str) -> Iterator[None]:
    """Let a command end as after any signal, but say which checkpoint a training has saved, and how to go on.

    Args:
        advice: how.

    Raises:
        KeyboardInterrupt: where a training was ended by Ctrl-C.
        Terminated: where a training was ended by SIGTERM.
    """
    try:
        yield
    except TrainingInterrupted as interruption:
        kind = Terminated if interruption.signal_number == signal.SIGTERM else KeyboardInterrupt
        raise kind(f"{interruption}; {advice}") from interruption


def make_optimizer(stage: TrainingStage, options: OptimizationOptions) -> torch.optim.AdamW:
    """AdamW over what the stage updates.

    Raises:
        ValueError: if that is nothing.
    """
    return torch.optim.AdamW(
        parameter_groups(stage, options.weight_decay),
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
    )


def make_settings(run: RunOptions, optimization: OptimizationOptions, max_steps: int, **others: Any) -> TrainerSettings:
    """How the loop proceeds.

    Args:
        run: where to, and how often.
        optimization: clipping and averaging.
        max_steps: length of the run.
        **others: further fields of [`TrainerSettings`].
    """
    return TrainerSettings(
        Path(run.output_dir),
        max_steps=max_steps,
        max_grad_norm=optimization.max_grad_norm or None,
        ema_decay=optimization.ema_decay,
        logging_steps=run.logging_steps,
        save_steps=run.saving_interval(max_steps),
        checkpoints_limit=run.checkpoints_limit,
        **others,
    )


def train(trainer: Trainer, run: RunOptions, options: dict[str, Any]) -> TrainingResult:
    """Run the loop; options and reports go to the output folder and the trackers.

    Raises:
        DataError: if a sample cannot be read; the message names it.
        TrainingInterrupted: after Ctrl-C or SIGTERM, when a checkpoint has been saved.
    """
    accelerator = trainer.accelerator
    if accelerator.is_main_process:
        write_json(Path(run.output_dir) / OPTIONS_FILE, options, indent=2)
    accelerator.init_trackers(run.project_name, config=_tracker_config(options))
    try:
        return trainer.train(run.resume_from_checkpoint)
    except DataError as error:
        raise DataError(message_of_worker(error)) from error


def load_weights(
    start: StartOptions, name: str
) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """A model to train, in fp32, and its processor.

    Raises:
        HubError: if it cannot be fetched.
    """
    source = {"revision": start.model_revision} if start.model_revision else {}
    name = find_model(name)
    with explaining("load the model", name, start.model_revision):
        segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(name, dtype=torch.float32, **source)
        keep_vocabularies(segmenter)
        return segmenter, MaskAdapterProcessor.from_pretrained(name, **source)


def load_model(options: TrainingOptions) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """The model to start from, with a new adapter if it has none or one is asked for, and its processor."""
    segmenter, processor = load_weights(options.start, options.start.model)
    adapter = options.adapter
    if adapter.new_adapter or (segmenter.adapter is None and options.stage != "generator"):
        add_adapter(
            segmenter,
            hidden_size=adapter.adapter_hidden_size,
            num_blocks=adapter.adapter_num_blocks,
            mask_channels=adapter.adapter_mask_channels,
            num_output_maps=adapter.adapter_num_output_maps,
            layer_scale_init_value=adapter.adapter_layer_scale,
        )
    if adapter.mask_threshold is not None:
        segmenter.config.mask_threshold = adapter.mask_threshold
    return segmenter, processor


def open_dataset(options: DataOptions, source: str, split: str | None, max_samples: int | None) -> Dataset:
    """A data set as the options describe it.

    Raises:
        DataError: see [`load_segmentation_dataset`].
        ValueError: if the number of samples is limited for a stream.
    """
    dataset = load_segmentation_dataset(source, options.vocabulary, options, split=split)
    if max_samples is None:
        return dataset
    if isinstance(dataset, SegmentationStream):
        raise ValueError(
            "A stream cannot be limited to a number of samples: leave max_train_samples and max_validation_samples out."
        )
    return dataset.select(range(min(max_samples, len(dataset))))


def number_of_steps(options: TrainingOptions, dataset: Dataset) -> int:
    """Length of the run in optimiser steps."""
    optimization = options.optimization
    if optimization.max_steps is not None:
        return optimization.max_steps
    assert optimization.num_epochs is not None
    assert isinstance(dataset, SegmentationDataset)
    return math.ceil(optimization.num_epochs * len(dataset) / optimization.batch_size)


def build_transform(
    options: TrainingOptions, segmenter: MaskAdapterForOpenVocabularySegmentation, processor: MaskAdapterProcessor
) -> TrainingTransform:
    """Augmentation and preparation of the training pictures.

    Raises:
        ValueError: if the crop does not fit the model.
    """
    require_fitting_crop(options.augmentation.crop_size, segmenter)
    return TrainingTransform(
        **dataclasses.asdict(options.augmentation),
        seed=options.optimization.seed,
        image_mean=processor.image_processor.image_mean,
        image_std=processor.image_processor.image_std,
    )


def require_fitting_crop(crop_size: int, segmenter: MaskAdapterForOpenVocabularySegmentation) -> None:
    """Check that the model's CLIP takes pictures of a size.

    Raises:
        ValueError: if not.
    """
    divisor = segmenter.config.clip_config.size_divisor
    if crop_size % divisor:
        raise ValueError(f"crop_size={crop_size} must be a multiple of {divisor}, the CLIP's last stride.")


def build_stage(
    options: TrainingOptions, segmenter: MaskAdapterForOpenVocabularySegmentation, vocabulary: EncodedVocabulary
) -> SegmenterStage:
    """The stage with its options.

    Raises:
        ValueError: if the model lacks what the stage needs.
    """
    targets, optimization = options.targets, options.optimization
    common: dict[str, Any] = {
        "class_weight": targets.class_weight,
        "train_void": targets.train_void,
        "seed": optimization.seed,
    }
    stage = STAGES[options.stage]
    if options.stage == "generator":
        return stage(segmenter, vocabulary, options.masks, **common)
    common["gradient_checkpointing"] = optimization.gradient_checkpointing
    common["adapter_implementation"] = optimization.adapter_implementation
    if targets.max_ground_truth_masks is not None:
        common["max_ground_truth_masks"] = targets.max_ground_truth_masks
    if options.stage == "mixed":
        common |= dataclasses.asdict(options.matching)
    return stage(segmenter, vocabulary, **common)


def build_validation(
    options: TrainingOptions,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    accelerator: Accelerator,
    signals: StopSignals,
) -> Callable[[], dict[str, float]] | None:
    """Mean IoU on the validation data, if there are any.

    The adapter's stages are validated on generated masks, or on the annotated ones if the model has no generator. A
    signal ends it before the next picture.
    """
    validation = options.validation
    if validation.validation_split is None:
        return None
    from ..evaluation.evaluator import EvaluationStopped, evaluate_model
    from ..evaluation.predictors import MaskAdapterPredictor, Method

    source = validation.validation_dataset or options.data.dataset
    dataset = open_dataset(options.data, source, validation.validation_split, validation.max_validation_samples)
    masks = validation.eval_masks or ("generator" if segmenter.mask_generator is not None else "annotation")
    methods = (Method("pooling", "pooling"),) if segmenter.adapter is None else ()
    predictor = MaskAdapterPredictor(segmenter, processor, dataset.vocabulary, masks=masks, methods=methods)

    def validate() -> dict[str, float]:
        try:
            result = evaluate_model(
                predictor,
                dataset,
                accelerator=accelerator,
                num_workers=options.data.num_workers,
                show_progress=False,
                should_stop=signals.is_received,
            )
        except EvaluationStopped as stopped:
            raise ValidationInterrupted(str(stopped)) from stopped
        return result.metrics

    return validate


def describe(
    options: TrainingOptions, stage: SegmenterStage, dataset: Dataset, max_steps: int, accelerator: Accelerator
) -> str:
    """What is about to happen, for people."""
    trained = sum(parameter.numel() for parameter in stage.parameters())
    everything = sum(parameter.numel() for parameter in stage.segmenter.parameters())
    size = f"{len(dataset)} samples" if isinstance(dataset, SegmentationDataset) else "a stream"
    return (
        f"Stage {stage.name} on {dataset.name}: {size}, {len(dataset.vocabulary)} classes. {trained / 1e6:.2f} M of "
        f"{everything / 1e6:.2f} M parameters are trained for {max_steps} steps of {options.optimization.batch_size} "
        f"pictures on {accelerator.num_processes} process(es), device {accelerator.device.type}, precision "
        f"{accelerator.mixed_precision}."
    )


def save_result(
    options: TrainingOptions,
    trainer: Trainer,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    dataset: Dataset,
    result: TrainingResult,
) -> None:
    """Save the trained model, its adapter alone, their cards and the results; upload the model if that is wanted.

    Raises:
        OSError: if a file cannot be written. Checkpoints are as they were, so that the run can be given again.
        HubError: if the model cannot be uploaded; it has been saved before.
    """
    accelerator, output_dir, outcome = trainer.accelerator, Path(options.run.output_dir), options.outcome
    state = complete_state(segmenter, trainer, result, outcome.keep)
    if accelerator.is_main_process:
        num_samples = len(dataset) if isinstance(dataset, SegmentationDataset) else None
        facts = (
            flat(options),
            dataclasses.asdict(result),
            num_samples,
            len(dataset.vocabulary),
            versions(),
        )
        save_model(segmenter, processor, state, output_dir, options.fingerprint(), training_card(*facts))
        if not isinstance(trainer.stage, MaskGeneratorTraining):
            base = outcome.base_model or options.start.model
            with replacing_folder(output_dir / ADAPTER_FOLDER) as folder:
                save_adapter_weights(segmenter, folder, base, options.start.model_revision, state)
                (folder / CARD_NAME).write_text(training_card(*facts, kind="adapter"), encoding="utf-8")
        write_json(output_dir / RESULT_FILE, dataclasses.asdict(result), indent=2)
        logger.info("The trained model is in %s.", output_dir / MODEL_FOLDER)
        if outcome.push_to_hub:
            publication = push_finished_work(
                output_dir / MODEL_FOLDER,
                outcome.hub_model_id or "",
                kind="model",
                private=outcome.hub_private or None,
                commit_message="Upload trained model",
            )
            logger.info("Uploaded to %s.", publication.commit_url)
    accelerator.wait_for_everyone()


def save_model(
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    state: dict[str, Tensor],
    output_dir: Path,
    fingerprint: dict[str, Any],
    card: str,
) -> None:
    """Save a complete model with its processor, its card and the options that decided its weights.

    Raises:
        OSError: if a file cannot be written; an earlier model is then as it was.
    """
    with replacing_folder(output_dir / MODEL_FOLDER) as folder:
        segmenter.save_pretrained(folder, state_dict=dict(state), save_original_format=False)
        processor.save_pretrained(folder)
        write_json(folder / OPTIONS_FILE, fingerprint, indent=2)
        (folder / CARD_NAME).write_text(card, encoding="utf-8")


def complete_state(
    segmenter: MaskAdapterForOpenVocabularySegmentation, trainer: Trainer, result: TrainingResult, keep: str = "last"
) -> dict[str, Tensor]:
    """The segmenter's weights with those that were trained; for the main process, the call is one of all processes."""
    trained = trained_weights(trainer, result, keep)
    rest = {name: tensor for name, tensor in segmenter.state_dict().items() if name not in trained}
    return {name: tensor.contiguous() for name, tensor in (rest | trained).items()}


def trained_weights(trainer: Trainer, result: TrainingResult, keep: str) -> dict[str, Tensor]:
    """What was trained, under the model's names: the last weights or the best, averaged if an average was kept."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return accelerator.get_state_dict(trainer.prepared_stage) or {}
    weights = {name: tensor.detach().cpu() for name, tensor in trainer.stage.state_dict().items()}
    step = result.best_step if keep == "best" and result.best_step is not None else result.step
    checkpoint = trainer.checkpoints.path(step)
    if step != result.step:
        trainer.checkpoints.verify(checkpoint)
        weights = load_file(checkpoint / MODEL_WEIGHTS)
    if trainer.ema is not None:
        averages = load_file(checkpoint / EMA_WEIGHTS)
        weights |= {name: average.to(weights[name].dtype) for name, average in averages.items()}
    return weights


def message_of_worker(error: Exception) -> str:
    """The message alone of an error that a data loader's worker passed on with its traceback."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def _tracker_config(options: dict[str, Any]) -> dict[str, Any]:
    """The options as trackers take them: numbers and texts."""
    return {
        name: value if isinstance(value, int | float | str | bool) else json.dumps(value)
        for name, value in options.items()
        if value is not None
    }


__all__ = [
    "ADAPTER_FOLDER",
    "MODEL_FOLDER",
    "OPTIONS_FILE",
    "RESULT_FILE",
    "STAGES",
    "build_stage",
    "build_transform",
    "build_validation",
    "claimed_output",
    "complete_state",
    "load_model",
    "load_weights",
    "make_accelerator",
    "make_optimizer",
    "make_settings",
    "message_of_worker",
    "number_of_steps",
    "open_dataset",
    "require_fitting_crop",
    "run_training",
    "save_model",
    "save_result",
    "told_as_interruption",
    "train",
    "trained_weights",
]
