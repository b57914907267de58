"""What `scripts/train.py` does: open model and data, train, save the result."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
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
from ..files import replacing_folder, write_json
from ..hub.adapter_weights import add_adapter, save_adapter_weights
from ..hub.cards import CARD_NAME, training_card
from ..hub.errors import explaining
from ..hub.pushing import prepare_repository, push_finished_work
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..provenance import versions
from .arguments import TrainingArguments
from .optimization import LearningRateSchedule, parameter_groups
from .options import DataArguments
from .stages import AdapterStage, GroundTruthWarmup, MaskGeneratorTraining, MixedMaskTraining, SegmenterStage
from .trainer import EMA_WEIGHTS, MODEL_WEIGHTS, Trainer, TrainerSettings, TrainingResult

ARGUMENTS_FILE = "training_arguments.json"
RESULT_FILE = "training_result.json"
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"

logger = logging.getLogger(__name__)

Dataset = SegmentationDataset | SegmentationStream


def run_training(arguments: TrainingArguments) -> TrainingResult:
    """Train as the arguments say, and save the trained model.

    The output folder then holds `model/` (the complete model with its processor and card), `adapter/` (the adapter
    alone, if that was trained), `checkpoints/`, `log.jsonl` (a line for each step), `training_arguments.json` and
    `training_result.json`. To be called by every process.

    Raises:
        DataError: if the data cannot be read or do not fit the vocabulary; the message names the sample.
        CheckpointError: if a checkpoint cannot be written or used.
        HubError: if the model cannot be fetched, or the Hub refuses an upload, which is tried before training.
        ValueError: if options do not fit the model or the data.
    """
    output_dir = Path(arguments.output_dir)
    accelerator = Accelerator(
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        mixed_precision=arguments.mixed_precision,
        log_with=list(arguments.report_to) or None,
        project_dir=str(output_dir),
    )
    require_trackers(accelerator, arguments.report_to)
    batch_size = arguments.batch_size_per_process(accelerator.num_processes)
    if arguments.push_to_hub and accelerator.is_main_process:
        prepare_repository(arguments.hub_model_id or "", private=arguments.hub_private or None)
    set_seed(arguments.seed)
    segmenter, processor = load_model(arguments)
    dataset = open_dataset(arguments, arguments.dataset, arguments.train_split, arguments.max_train_samples)
    max_steps = number_of_steps(arguments, dataset)
    segmenter.to(accelerator.device)
    vocabulary = segmenter.encode_vocabulary(dataset.vocabulary, processor)
    stage = build_stage(arguments, segmenter, vocabulary)
    if arguments.feature_cache is not None and isinstance(stage, AdapterStage):
        max_bytes = int((arguments.feature_cache_gigabytes or 0) * 1e9)
        stage.keep_features(arguments.feature_cache, max_bytes, accelerator.num_processes)
    if isinstance(stage, MaskGeneratorTraining) or segmenter.config.training_vocabulary is None:
        segmenter.config.training_vocabulary = [list(entry.synonyms) for entry in dataset.vocabulary]
    loader = create_training_loader(
        dataset,
        build_transform(arguments, segmenter, processor),
        batch_size,
        seed=arguments.seed,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        shuffle_buffer=arguments.shuffle_buffer,
        collate=partial(collate_training_samples, mask_labels=False),
        num_workers=arguments.num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    trainer = Trainer(
        stage,
        loader,
        torch.optim.AdamW(
            parameter_groups(stage, arguments.weight_decay),
            lr=arguments.learning_rate,
            betas=(arguments.adam_beta1, arguments.adam_beta2),
            eps=arguments.adam_epsilon,
        ),
        LearningRateSchedule(
            arguments.lr_scheduler or "constant",
            max_steps,
            arguments.warmup_steps,
            arguments.milestone_steps(max_steps),
            arguments.lr_gamma,
            arguments.lr_power,
        ),
        accelerator,
        TrainerSettings(
            output_dir,
            max_steps=max_steps,
            gradient_accumulation_steps=arguments.gradient_accumulation_steps,
            max_grad_norm=arguments.max_grad_norm or None,
            ema_decay=arguments.ema_decay,
            logging_steps=arguments.logging_steps,
            eval_steps=arguments.eval_steps,
            save_steps=arguments.save_steps,
            checkpoints_limit=arguments.checkpoints_limit,
            fingerprint=arguments.fingerprint(),
        ),
        build_validation(arguments, segmenter, processor, accelerator),
    )
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / ARGUMENTS_FILE, dataclasses.asdict(arguments), indent=2)
        logger.info(describe(arguments, stage, dataset, max_steps, accelerator))
    accelerator.init_trackers(arguments.project_name, config=_tracker_config(arguments))
    try:
        result = trainer.train(arguments.resume_from_checkpoint)
        save_result(arguments, trainer, segmenter, processor, dataset, result)
    except DataError as error:
        raise DataError(message_of_worker(error)) from error
    finally:
        accelerator.end_training()
    return result


def require_trackers(accelerator: Accelerator, names: Sequence[str]) -> None:
    """Check that Accelerate found all trackers that were asked for; it leaves out silently what is not installed.

    Raises:
        ImportError: if one is missing.
    """
    found = {str(tracker) for tracker in accelerator.log_with}
    missing = [name for name in names if name != "all" and name not in found]
    if missing:
        raise ImportError(
            f"report_to: {', '.join(missing)} cannot be imported; install it (pip install ...) or leave it out."
        )


def load_model(arguments: TrainingArguments) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """The model to start from, with a new adapter if it has none or one is asked for, and its processor."""
    source = {"revision": arguments.model_revision} if arguments.model_revision else {}
    with explaining("load the model", arguments.model, arguments.model_revision):
        segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(
            arguments.model, dtype=torch.float32, **source
        )
        processor = MaskAdapterProcessor.from_pretrained(arguments.model, **source)
    if arguments.new_adapter or (segmenter.adapter is None and arguments.stage != "generator"):
        add_adapter(
            segmenter,
            hidden_size=arguments.adapter_hidden_size,
            num_blocks=arguments.adapter_num_blocks,
            mask_channels=arguments.adapter_mask_channels,
            num_output_maps=arguments.adapter_num_output_maps,
            layer_scale_init_value=arguments.adapter_layer_scale,
        )
    if arguments.mask_threshold is not None:
        segmenter.config.mask_threshold = arguments.mask_threshold
    return segmenter, processor


def open_dataset(arguments: DataArguments, source: str, split: str | None, max_samples: int | None) -> Dataset:
    """A data set as the arguments describe it.

    Raises:
        DataError: see [`load_segmentation_dataset`].
        ValueError: if the number of samples is limited for a stream.
    """
    names = (
        "streaming layout image_folder panoptic_folder image_column label_column panoptic_column segments_column "
        "id_column reduce_labels ignore_index ignore_unlisted cache_dir"
    )
    dataset = load_segmentation_dataset(
        source,
        arguments.vocabulary,
        split=split,
        config_name=arguments.dataset_config,
        **{name: getattr(arguments, name) for name in names.split()},
    )
    if max_samples is None:
        return dataset
    if isinstance(dataset, SegmentationStream):
        raise ValueError(
            "A stream cannot be limited to a number of samples: leave max_train_samples and max_validation_samples out."
        )
    return dataset.select(range(min(max_samples, len(dataset))))


def number_of_steps(arguments: TrainingArguments, dataset: Dataset) -> int:
    """Length of the run in optimiser steps."""
    if arguments.max_steps is not None:
        return arguments.max_steps
    assert arguments.num_epochs is not None
    assert isinstance(dataset, SegmentationDataset)
    return math.ceil(arguments.num_epochs * len(dataset) / arguments.batch_size)


def build_transform(
    arguments: TrainingArguments, segmenter: MaskAdapterForOpenVocabularySegmentation, processor: MaskAdapterProcessor
) -> TrainingTransform:
    """Augmentation and preparation of the training pictures.

    Raises:
        ValueError: if the crop does not fit the model.
    """
    divisor = segmenter.config.clip_config.size_divisor
    if arguments.crop_size % divisor:
        raise ValueError(f"crop_size={arguments.crop_size} must be a multiple of {divisor}, the CLIP's last stride.")
    return TrainingTransform(
        crop_size=arguments.crop_size,
        scale_range=arguments.scale_range,
        flip_probability=arguments.flip_probability,
        color_augmentation=arguments.color_augmentation,
        mask_unit=arguments.mask_unit,
        mask_stride=arguments.mask_stride,
        min_mask_area=arguments.min_mask_area,
        seed=arguments.seed,
        image_mean=processor.image_processor.image_mean,
        image_std=processor.image_processor.image_std,
    )


def build_stage(
    arguments: TrainingArguments, segmenter: MaskAdapterForOpenVocabularySegmentation, vocabulary: EncodedVocabulary
) -> SegmenterStage:
    """The stage with its options.

    Raises:
        ValueError: if the model lacks what the stage needs.
    """

    def options(names: str) -> dict[str, Any]:
        return {name: getattr(arguments, name) for name in names.split()}

    common = options("class_weight train_void seed")
    if arguments.stage == "generator":
        own = options("mask_weight dice_weight no_object_weight num_points oversample_ratio importance_sample_ratio")
        return MaskGeneratorTraining(segmenter, vocabulary, **common, **own)
    common |= options("gradient_checkpointing adapter_implementation")
    if arguments.max_ground_truth_masks is not None:
        common["max_ground_truth_masks"] = arguments.max_ground_truth_masks
    if arguments.stage == "warmup":
        return GroundTruthWarmup(segmenter, vocabulary, **common)
    own = options(
        "max_matches matcher iou_threshold binarize_threshold consistency_weight detach_target count_empty_pairs"
    )
    return MixedMaskTraining(segmenter, vocabulary, **common, **own)


def build_validation(
    arguments: TrainingArguments,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    accelerator: Accelerator,
) -> Callable[[], dict[str, float]] | None:
    """Mean IoU on the validation data, if there are any.

    The adapter's stages are validated on generated masks, or on the annotated ones if the model has no generator.
    """
    if arguments.validation_split is None:
        return None
    from ..evaluation.evaluator import evaluate_model
    from ..evaluation.predictors import MaskAdapterPredictor, Method

    source = arguments.validation_dataset or arguments.dataset
    dataset = open_dataset(arguments, source, arguments.validation_split, arguments.max_validation_samples)
    masks = arguments.eval_masks or ("generator" if segmenter.mask_generator is not None else "annotation")
    methods = (Method("pooling", "pooling"),) if segmenter.adapter is None else ()
    predictor = MaskAdapterPredictor(segmenter, processor, dataset.vocabulary, masks=masks, methods=methods)

    def validate() -> dict[str, float]:
        result = evaluate_model(
            predictor, dataset, accelerator=accelerator, num_workers=arguments.num_workers, show_progress=False
        )
        return result.metrics

    return validate


def describe(
    arguments: TrainingArguments, stage: SegmenterStage, dataset: Dataset, max_steps: int, accelerator: Accelerator
) -> str:
    """What is about to happen, for people."""
    trained = sum(parameter.numel() for parameter in stage.parameters())
    everything = sum(parameter.numel() for parameter in stage.segmenter.parameters())
    size = f"{len(dataset)} samples" if isinstance(dataset, SegmentationDataset) else "a stream"
    return (
        f"Stage {stage.name} on {dataset.name}: {size}, {len(dataset.vocabulary)} classes. {trained / 1e6:.2f} M of "
        f"{everything / 1e6:.2f} M parameters are trained for {max_steps} steps of {arguments.batch_size} pictures on "
        f"{accelerator.num_processes} process(es), device {accelerator.device.type}, precision "
        f"{accelerator.mixed_precision}."
    )


def save_result(
    arguments: TrainingArguments,
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
    accelerator, output_dir = trainer.accelerator, Path(arguments.output_dir)
    trained = trained_weights(arguments, trainer, result)
    if accelerator.is_main_process:
        state = {name: tensor for name, tensor in segmenter.state_dict().items() if name not in trained} | trained
        num_samples = len(dataset) if isinstance(dataset, SegmentationDataset) else None
        facts = (
            dataclasses.asdict(arguments),
            dataclasses.asdict(result),
            num_samples,
            len(dataset.vocabulary),
            versions(),
        )
        with replacing_folder(output_dir / MODEL_FOLDER) as folder:
            segmenter.save_pretrained(folder, state_dict=dict(state), save_original_format=False)
            processor.save_pretrained(folder)
            write_json(folder / ARGUMENTS_FILE, arguments.fingerprint(), indent=2)
            (folder / CARD_NAME).write_text(training_card(*facts), encoding="utf-8")
        if not isinstance(trainer.stage, MaskGeneratorTraining):
            base = arguments.base_model or arguments.model
            with replacing_folder(output_dir / ADAPTER_FOLDER) as folder:
                save_adapter_weights(segmenter, folder, base, arguments.model_revision, state)
                (folder / CARD_NAME).write_text(training_card(*facts, kind="adapter"), encoding="utf-8")
        write_json(output_dir / RESULT_FILE, dataclasses.asdict(result), indent=2)
        logger.info("The trained model is in %s.", output_dir / MODEL_FOLDER)
        if arguments.push_to_hub:
            publication = push_finished_work(
                output_dir / MODEL_FOLDER,
                arguments.hub_model_id or "",
                kind="model",
                private=arguments.hub_private or None,
                commit_message="Upload trained model",
            )
            logger.info("Uploaded to %s.", publication.commit_url)
    accelerator.wait_for_everyone()


def trained_weights(arguments: TrainingArguments, trainer: Trainer, result: TrainingResult) -> dict[str, Tensor]:
    """What was trained, under the model's names: the last weights or the best, averaged if an average was kept."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return accelerator.get_state_dict(trainer.prepared_stage) or {}
    weights = {name: tensor.detach().cpu() for name, tensor in trainer.stage.state_dict().items()}
    step = result.best_step if arguments.keep == "best" and result.best_step is not None else result.step
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


def _tracker_config(arguments: TrainingArguments) -> dict[str, Any]:
    """The arguments as trackers take them: numbers and texts."""
    values = dataclasses.asdict(arguments)
    return {
        name: value if isinstance(value, int | float | str | bool) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


__all__ = [
    "ADAPTER_FOLDER",
    "MODEL_FOLDER",
    "build_stage",
    "build_transform",
    "build_validation",
    "load_model",
    "message_of_worker",
    "number_of_steps",
    "open_dataset",
    "run_training",
    "save_result",
    "trained_weights",
]
