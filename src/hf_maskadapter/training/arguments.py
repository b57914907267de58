"""The options of a training run, the published recipes as presets, and the command line made of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .options import DATA, DataArguments, build_option_parser, option

STAGE_NAMES = ("warmup", "mixed", "generator")
_WARMUP = {"crop_size": 768, "batch_size": 8, "max_steps": 295_717, "milestones": (260_231, 283_888)}
_MIXED = {"crop_size": 1024, "batch_size": 24, "max_steps": 49_286}

PRESETS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("warmup", "fcclip"): _WARMUP | {"mask_unit": "segment"},
    ("warmup", "maft"): _WARMUP | {"mask_unit": "class"},
    ("mixed", "fcclip"): _MIXED
    | {"mask_unit": "segment", "milestones": (43_371, 47_314), "binarize_threshold": 0.4, "detach_target": True},
    ("mixed", "maft"): _MIXED
    | {
        "mask_unit": "class",
        "lr_scheduler": "polynomial",
        "weight_decay": 2e-5,
        "binarize_threshold": 0.5,
        "detach_target": False,
        "train_void": False,
    },
    ("generator", "fcclip"): {
        "crop_size": 1024,
        "batch_size": 16,
        "max_steps": 368_750,
        "milestones": (327_778, 355_092),
        "max_grad_norm": 0.01,
        "mask_unit": "segment",
    },
}
"""Published hyperparameters by stage and family (arXiv 2412.04533, METHOD "Training"; generator: arXiv 2308.02487)."""

_CROP, _LOSS = "augmentation", "targets and losses"
_NEW, _OPTIMIZER, _RUN, _RESULT = "the adapter", "optimisation", "the run", "the result"


@dataclass(kw_only=True)
class TrainingArguments(DataArguments):
    """Options of a training run. Each is explained in its field's metadata and by `scripts/train.py --help`.

    Raises:
        ValueError: if options contradict each other or are out of range.
    """

    stage: Literal["warmup", "mixed", "generator"] = option(
        _RUN,
        "what to train: the adapter on ground-truth masks (warmup, stage 1), the adapter on ground-truth and predicted "
        "masks (mixed, stage 2), or the mask generator",
    )
    preset: Literal["fcclip", "maft"] | None = option(
        _RUN, "published hyperparameters, which other options override", None
    )
    model: str = option(_RUN, "model to start from: a folder or a Hub id")
    model_revision: str | None = option(_RUN, "its version on the Hub", None)
    output_dir: str = option(_RUN, "folder for checkpoints, logs and the trained model")

    validation_dataset: str | None = option(DATA, "data to validate on, if not the training data's", None)
    validation_split: str | None = option(DATA, "split to validate on; without, there is no validation", None)
    max_validation_samples: int | None = option(DATA, "validate on the first so many samples", None)
    feature_cache: str | None = option(
        DATA, "folder in which to keep what the frozen parts compute; pictures must be the same in every epoch", None
    )
    feature_cache_gigabytes: float | None = option(DATA, "size that this folder may reach", None)

    crop_size: int = option(_CROP, "side of the training crops in pixels", 768)
    scale_range: tuple[float, float] = option(_CROP, "range of the large-scale jitter", (0.1, 2.0))
    flip_probability: float = option(_CROP, "probability of a horizontal flip", 0.5)
    color_augmentation: bool = option(_CROP, "SSD's random colours; off in the published recipes", False)
    mask_unit: Literal["segment", "class"] = option(_CROP, "a mask for each segment or for each class", "segment")
    mask_stride: int = option(_CROP, "hand over masks reduced so many times", 1)
    min_mask_area: int = option(_CROP, "leave out smaller masks, in pixels", 1)

    class_weight: float = option(_LOSS, "weight of the class loss", 2.0)
    train_void: bool = option(_LOSS, "update the void embedding too", True)
    max_ground_truth_masks: int | None = option(
        _LOSS, "ground-truth masks of a picture; by default 32 (warmup) or 16 (mixed)", None
    )
    max_matches: int = option(_LOSS, "mixed: predicted masks of a picture", 8)
    matcher: Literal["iou", "hungarian"] = option(_LOSS, "mixed: how predictions find their ground truth", "iou")
    iou_threshold: float = option(_LOSS, "mixed: IoU above which a prediction matches", 0.7)
    binarize_threshold: float = option(_LOSS, "mixed: probability at which predictions are binarised to match", 0.4)
    consistency_weight: float = option(_LOSS, "mixed: weight of the mask-consistency loss", 5.0)
    detach_target: bool = option(_LOSS, "mixed: stop that loss's gradient at the ground-truth side", True)
    count_empty_pairs: bool = option(_LOSS, "mixed: count absent pairs as the published implementation does", False)
    mask_weight: float = option(_LOSS, "generator: weight of the mask cross-entropy", 5.0)
    dice_weight: float = option(_LOSS, "generator: weight of the dice loss", 5.0)
    no_object_weight: float = option(_LOSS, "generator: weight of unmatched queries in the class loss", 0.1)
    num_points: int = option(_LOSS, "generator: points at which masks are compared", 12544)
    oversample_ratio: float = option(_LOSS, "generator: so many times as many points to choose from", 3.0)
    importance_sample_ratio: float = option(_LOSS, "generator: fraction of points where masks are uncertain", 0.75)

    new_adapter: bool = option(_NEW, "begin with a new adapter, even if the model has one", False)
    adapter_hidden_size: int = option(_NEW, "width of a new adapter's blocks", 768)
    adapter_num_blocks: int = option(_NEW, "blocks of a new adapter", 3)
    adapter_mask_channels: int = option(_NEW, "channels of a new adapter's mask encoder", 16)
    adapter_num_output_maps: int = option(_NEW, "activation maps of a new adapter for each mask", 16)
    adapter_layer_scale: float = option(_NEW, "initial layer scale of a new adapter; 0.1 for short runs", 1e-6)
    mask_threshold: float | None = option(
        _NEW, "probability above which a pixel belongs to a predicted mask, instead of the model's", None
    )

    batch_size: int = option(_OPTIMIZER, "pictures in an optimiser step, over all processes", 8)
    gradient_accumulation_steps: int = option(_OPTIMIZER, "parts into which each process divides its share", 1)
    max_steps: int | None = option(_OPTIMIZER, "length of the run in optimiser steps", None)
    num_epochs: float | None = option(_OPTIMIZER, "length of the run in epochs instead", None)
    learning_rate: float = option(_OPTIMIZER, "AdamW's learning rate", 1e-4)
    weight_decay: float = option(_OPTIMIZER, "AdamW's weight decay", 0.05)
    adam_beta1: float = option(_OPTIMIZER, "AdamW's first beta", 0.9)
    adam_beta2: float = option(_OPTIMIZER, "AdamW's second beta", 0.999)
    adam_epsilon: float = option(_OPTIMIZER, "AdamW's epsilon", 1e-8)
    lr_scheduler: Literal["constant", "multistep", "polynomial", "cosine"] | None = option(
        _OPTIMIZER, "course of the learning rate; by default multistep with a preset, cosine without", None
    )
    warmup_steps: int = option(_OPTIMIZER, "steps in which the learning rate rises", 0)
    milestones: tuple[float, ...] = option(
        _OPTIMIZER,
        "where a multistep schedule drops: steps, or fractions of the run below 1; a preset's move with its length",
        (),
    )
    lr_gamma: float = option(_OPTIMIZER, "factor of a drop", 0.1)
    lr_power: float = option(_OPTIMIZER, "power of a polynomial schedule", 0.9)
    max_grad_norm: float = option(_OPTIMIZER, "norm that gradients are clipped at; 0: no clipping", 1.0)
    ema_decay: float | None = option(_OPTIMIZER, "decay of a moving average of the weights", None)
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option(
        _OPTIMIZER, "by default what accelerate launch says", None
    )
    gradient_checkpointing: bool = option(_OPTIMIZER, "compute more to need less memory", False)
    adapter_implementation: Literal["dense", "sparse"] = option(
        _OPTIMIZER, "sparse: equal gradients but for rounding, faster and in less memory where masks are small", "dense"
    )
    seed: int = option(_OPTIMIZER, "seed of every random choice", 0)

    logging_steps: int = option(_RUN, "report so often, in optimiser steps", 20)
    eval_steps: int | None = option(_RUN, "validate so often, besides at the end", None)
    eval_masks: Literal["generator", "annotation"] | None = option(
        _RUN, "masks to validate on; by default generated ones if the model generates any", None
    )
    save_steps: int | None = option(_RUN, "write a checkpoint so often, besides at the end", 1000)
    checkpoints_limit: int = option(_RUN, "keep so many of the latest checkpoints, and the best one", 3)
    resume_from_checkpoint: str | None = option(_RUN, "go on: 'latest', or a checkpoint's folder", None)
    report_to: tuple[str, ...] = option(_RUN, "trackers by name, e.g. tensorboard wandb", ())
    project_name: str = option(_RUN, "what trackers call the project", "maskadapter")

    keep: Literal["last", "best"] = option(_RESULT, "weights to save as the trained model", "last")
    base_model: str | None = option(
        _RESULT, "what adapter-only weights are to be attached to; by default the model started from", None
    )
    push_to_hub: bool = option(_RESULT, "upload the trained model", False)
    hub_model_id: str | None = option(_RESULT, "where to, as owner/name", None)
    hub_private: bool = option(_RESULT, "make a private repository", False)

    def __post_init__(self) -> None:
        if self.lr_scheduler is None:
            self.lr_scheduler = "multistep" if self.milestones else "cosine"
        self._check()

    def _check(self) -> None:
        if (self.max_steps is None) == (self.num_epochs is None):
            raise ValueError("Say how long to train: give either max_steps, num_epochs or a preset.")
        if self.num_epochs is not None and self.streaming:
            raise ValueError("A stream has no length: give max_steps in place of num_epochs.")
        if self.lr_scheduler == "multistep" and not self.milestones:
            raise ValueError("A multistep schedule needs milestones.")
        if self.eval_steps is not None and self.validation_split is None:
            raise ValueError("eval_steps needs a validation_split.")
        if self.keep == "best" and self.validation_split is None:
            raise ValueError("keep='best' needs a validation_split, on which to find the best weights.")
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("push_to_hub needs hub_model_id, as owner/name.")
        self._check_feature_cache()
        for name in ("batch_size", "gradient_accumulation_steps", "logging_steps", "checkpoints_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_points < 1 or self.oversample_ratio < 1 or not 0 <= self.importance_sample_ratio <= 1:
            raise ValueError(
                "num_points and oversample_ratio must be at least 1 and importance_sample_ratio lie in 0..1, got "
                f"{self.num_points}, {self.oversample_ratio} and {self.importance_sample_ratio}."
            )

    def _check_feature_cache(self) -> None:
        if self.feature_cache is None:
            return
        if self.stage == "generator":
            raise ValueError("feature_cache is for the adapter's stages; a mask generator needs all feature maps.")
        if self.feature_cache_gigabytes is None or self.feature_cache_gigabytes <= 0:
            raise ValueError("feature_cache needs feature_cache_gigabytes, the size that it may reach.")
        smallest, largest = self.scale_range
        is_random = smallest != largest or largest > 1 or self.flip_probability not in (0, 1) or self.color_augmentation
        if is_random:
            raise ValueError(
                "feature_cache needs pictures that are the same in every epoch: set scale_range to 1 1 (or another "
                "pair of equal numbers up to 1) and flip_probability to 0, and leave color_augmentation out."
            )

    def milestone_steps(self, max_steps: int) -> list[int]:
        """The milestones as steps of a run of `max_steps`."""
        return [round(milestone * max_steps) if milestone < 1 else round(milestone) for milestone in self.milestones]

    def batch_size_per_process(self, num_processes: int) -> int:
        """Pictures that a process takes at a time.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        parts = num_processes * self.gradient_accumulation_steps
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be divided by {num_processes} processes × "
                f"{self.gradient_accumulation_steps} accumulated batches: choose a multiple of {parts}."
            )
        return self.batch_size // parts

    def fingerprint(self) -> dict[str, Any]:
        """The options that decide what weights come out."""
        left_out = {"output_dir", "cache_dir", "num_workers", "gradient_accumulation_steps"}
        left_out |= {"feature_cache", "feature_cache_gigabytes"}
        of_the_run = {"stage", "model", "model_revision"}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in left_out
            and (field.metadata["group"] not in (_RUN, _RESULT) or field.name in of_the_run)
        }


def with_preset(options: Mapping[str, Any]) -> TrainingArguments:
    """Arguments from options and the preset that they name; the options prevail.

    Args:
        options: values by name; what is not given comes from the preset, or else is the default.

    Raises:
        ValueError: if the stage has no such preset, or options do not fit.
    """
    family = options.get("preset")
    preset: dict[str, Any] = {}
    if family is not None:
        try:
            preset = dict(PRESETS[options["stage"], family])
        except KeyError:
            known = ", ".join(f"{stage} with {name}" for stage, name in PRESETS)
            raise ValueError(
                f"There is no preset {family!r} for {options.get('stage')!r}; there are: {known}."
            ) from None
        published_steps = preset["max_steps"]
        if options.get("num_epochs") is not None:
            preset["max_steps"] = None
        if options.get("max_steps", preset["max_steps"]) != published_steps and "milestones" in preset:
            preset["milestones"] = tuple(step / published_steps for step in preset["milestones"])
    given = {name: value for name, value in options.items() if value is not None}
    merged: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in (preset | given).items()
    }
    return TrainingArguments(**merged)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `scripts/train.py`; options that are not given are absent from its result."""
    return build_option_parser(
        TrainingArguments,
        "train.py",
        "Train a Mask-Adapter in its two stages, or a mask generator; with `accelerate launch` on any number of "
        "processes.",
    )


def parse_arguments(command_line: Sequence[str] | None = None) -> TrainingArguments:
    """Read a command line.

    Raises:
        SystemExit: if it is wrong, after a message.
    """
    parser = build_parser()
    options = vars(parser.parse_args(command_line))
    try:
        return with_preset(options)
    except ValueError as error:
        parser.error(str(error))


__all__ = ["PRESETS", "STAGE_NAMES", "TrainingArguments", "build_parser", "parse_arguments", "with_preset"]
