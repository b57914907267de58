"""What a training can be told, as dataclasses that say what every field means; the published recipes as presets.

Nothing here imports PyTorch, so that a command's help can show the options at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from ..data.options import DatasetOptions, option, option_group

Stage = Literal["warmup", "mixed", "generator"]
STAGE_NAMES: tuple[str, ...] = get_args(Stage)
DATA = "data"
"""What the commands' help calls [`DataOptions`]."""


def changed(kind: type, name: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is as in the dataclass above, but for its default: without one it must be given."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


@dataclass(kw_only=True)
class StartOptions:
    """The model to start from."""

    model: str = option("model to start from: a name (`maskadapter models`), a folder or a Hub id", metavar="DIR_OR_ID")
    model_revision: str | None = option("its version on the Hub", None, metavar="NAME")


@dataclass(kw_only=True)
class DataOptions(DatasetOptions):
    """What to train on, and how it is read."""

    dataset: str = option(
        "training data: a Hub id, a folder of pictures and label maps, COCO's root folder, a prepared data set",
        metavar="DIR_OR_ID",
    )
    train_split: str | None = option("split to train on", "train", metavar="NAME")
    max_train_samples: int | None = option("train on the first so many samples", None)
    vocabulary: str | None = option(
        "classes of the data: a file, a label set or names; by default what the data set tells", None, metavar="CLASSES"
    )
    shuffle_buffer: int = option("rows of a stream among which to choose the next one", 1000)
    num_workers: int = option("processes that read and augment pictures, for each training process", 4)


DATA_FLAGS = {"config_name": ("--dataset-config", "--config-name")}
"""What the commands call some of [`DataOptions`]."""


@dataclass(kw_only=True)
class OptimizationOptions:
    """AdamW on an optimiser step's pictures; what all stages have in common."""

    batch_size: int = option("pictures in an optimiser step, over all processes", 8)
    max_steps: int | None = option("length of the run in optimiser steps", None)
    learning_rate: float = option("AdamW's learning rate, at its peak", 1e-4)
    warmup_steps: int = option("steps in which the learning rate rises; the whole run at most", 0)
    weight_decay: float = option("AdamW's weight decay", 0.05)
    adam_beta1: float = option("AdamW's first beta", 0.9)
    adam_beta2: float = option("AdamW's second beta", 0.999)
    adam_epsilon: float = option("AdamW's epsilon", 1e-8)
    max_grad_norm: float = option("norm that gradients are clipped at; 0: no clipping", 1.0)
    ema_decay: float | None = option("decay of a moving average of the weights", None)
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option("by default what accelerate launch says", None)
    seed: int = option("seed of every random choice", 0)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_steps"):
            require_positive(name, getattr(self, name))


@dataclass(kw_only=True)
class RunOptions:
    """Where a run goes, and what it leaves behind on its way."""

    output_dir: str = option("folder for checkpoints, logs and the trained model", metavar="DIR")
    logging_steps: int = option("report so often, in optimiser steps", 20)
    save_steps: int | None = option(
        "write a checkpoint so often, besides at the end; by default ten times in the run, and every 1000 steps at "
        "least",
        None,
    )
    checkpoints_limit: int = option("keep so many of the latest checkpoints, and the best one", 3)
    resume_from_checkpoint: str | None = option("go on: 'latest', or a checkpoint's folder", None, metavar="CHECKPOINT")
    report_to: tuple[str, ...] = option("trackers by name, e.g. tensorboard wandb", ())
    project_name: str = option("what trackers call the project", "maskadapter")

    def __post_init__(self) -> None:
        for name in ("logging_steps", "save_steps", "checkpoints_limit"):
            require_positive(name, getattr(self, name))

    def saving_interval(self, max_steps: int) -> int:
        """Steps between checkpoints in a run of `max_steps`."""
        return self.save_steps or min(1000, math.ceil(max_steps / 10))


@dataclass(kw_only=True)
class ValidationOptions:
    """What is measured on held-out data during a training."""

    validation_dataset: str | None = option(
        "data to validate on, if not the training data's", None, metavar="DIR_OR_ID"
    )
    validation_split: str | None = option("split to validate on; without, there is no validation", None, metavar="NAME")
    max_validation_samples: int | None = option("validate on the first so many samples", None)
    eval_steps: int | None = option("validate so often, besides at the end", None)

    def __post_init__(self) -> None:
        for name in ("eval_steps", "max_validation_samples"):
            require_positive(name, getattr(self, name))
        if self.validation_split is None:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) is not None:
                    raise ValueError(f"{field.name} needs a validation_split.")


@dataclass(kw_only=True)
class SegmenterValidationOptions(ValidationOptions):
    """What is measured on held-out data while a stage on a segmenter is trained."""

    eval_masks: Literal["generator", "annotation"] | None = option(
        "masks to validate on; by default generated ones if the model generates any", None
    )


@dataclass(kw_only=True)
class FeatureCacheOptions:
    """What the frozen parts compute, kept for later epochs."""

    feature_cache: str | None = option(
        "folder in which to keep what the frozen parts compute; pictures must be the same in every epoch",
        None,
        metavar="DIR",
    )
    feature_cache_gigabytes: float | None = option("size that this folder may reach", None)

    @property
    def max_bytes(self) -> int:
        """The size in bytes."""
        return int((self.feature_cache_gigabytes or 0) * 1e9)


@dataclass(kw_only=True)
class AugmentationOptions:
    """What is done to the training pictures: fields of [`hf_maskadapter.data.TrainingTransform`]."""

    crop_size: int = option("side of the training crops in pixels", 768)
    scale_range: tuple[float, float] = option("range of the large-scale jitter", (0.1, 2.0))
    flip_probability: float = option("probability of a horizontal flip", 0.5)
    color_augmentation: bool = option("SSD's random colours; off in the published recipes", False)
    mask_unit: Literal["segment", "class"] = option("a mask for each segment or for each class", "segment")
    mask_stride: int = option("hand over masks reduced so many times", 1)
    min_mask_area: int = option("leave out smaller masks, in pixels", 1)

    @property
    def is_random(self) -> bool:
        """Whether a picture looks different in every epoch."""
        smallest, largest = self.scale_range
        is_scaled = smallest != largest or largest > 1
        return is_scaled or self.flip_probability not in (0, 1) or self.color_augmentation


@dataclass(kw_only=True)
class StageOptions:
    """Targets and losses that several stages have."""

    class_weight: float = option("weight of the class loss", 2.0)
    train_void: bool = option("update the void embedding too", True)
    max_ground_truth_masks: int | None = option(
        "warmup, mixed: ground-truth masks of a picture; by default 32 (warmup) or 16 (mixed)", None
    )


@dataclass(kw_only=True)
class MatchingOptions:
    """Predicted masks in the mixed stage: see [`hf_maskadapter.training.adapter_stages.MixedMaskTraining`]."""

    max_matches: int = option("predicted masks of a picture", 8)
    matcher: Literal["iou", "hungarian"] = option("how predictions find their ground truth", "iou")
    iou_threshold: float = option("IoU above which a prediction matches", 0.7)
    binarize_threshold: float = option("probability at which predictions are binarised to match", 0.4)
    consistency_weight: float = option("weight of the mask-consistency loss", 5.0)
    detach_target: bool = option("stop that loss's gradient at the ground-truth side", True)
    count_empty_pairs: bool = option("count absent pairs as the published implementation does", False)


@dataclass(kw_only=True)
class MaskLossOptions:
    """Mask2Former's losses, which train a mask generator: see [`hf_maskadapter.training.losses`]."""

    mask_weight: float = option("weight of the mask cross-entropy", 5.0)
    dice_weight: float = option("weight of the dice loss", 5.0)
    no_object_weight: float = option("weight of unmatched queries in the class loss", 0.1)
    num_points: int = option("points at which masks are compared", 12544)
    num_matching_points: int | None = option("points at which they are compared to match; by default as many", None)
    oversample_ratio: float = option("so many times as many points to choose from", 3.0)
    importance_sample_ratio: float = option("fraction of points where masks are uncertain", 0.75)

    def __post_init__(self) -> None:
        if self.num_points < 1 or self.oversample_ratio < 1 or not 0 <= self.importance_sample_ratio <= 1:
            raise ValueError(
                "num_points and oversample_ratio must be at least 1 and importance_sample_ratio lie in 0..1, got "
                f"{self.num_points}, {self.oversample_ratio} and {self.importance_sample_ratio}."
            )


@dataclass(kw_only=True)
class AdapterOptions:
    """A new adapter, and how the model's masks are binarised for it."""

    new_adapter: bool = option("begin with a new adapter, even if the model has one", False)
    adapter_hidden_size: int = option("width of a new adapter's blocks", 768)
    adapter_num_blocks: int = option("blocks of a new adapter", 3)
    adapter_mask_channels: int = option("channels of a new adapter's mask encoder", 16)
    adapter_num_output_maps: int = option("activation maps of a new adapter for each mask", 16)
    adapter_layer_scale: float = option("initial layer scale of a new adapter; 0.1 for short runs", 1e-6)
    mask_threshold: float | None = option(
        "probability above which a pixel belongs to a predicted mask, instead of the model's", None
    )


@dataclass(kw_only=True)
class SegmenterOptimizationOptions(OptimizationOptions):
    """How a stage on a segmenter is optimised."""

    num_epochs: float | None = option("length of the run in epochs instead", None)
    gradient_accumulation_steps: int = option("parts into which each process divides its share", 1)
    lr_scheduler: Literal["constant", "multistep", "polynomial", "cosine"] | None = option(
        "course of the learning rate; by default multistep with a preset, cosine without", None
    )
    milestones: tuple[float, ...] = option(
        "where a multistep schedule drops: steps, or fractions of the run below 1; a preset's move with its length",
        (),
    )
    lr_gamma: float = option("factor of a drop", 0.1)
    lr_power: float = option("power of a polynomial schedule", 0.9)
    gradient_checkpointing: bool = option("compute more to need less memory", False)
    adapter_implementation: Literal["auto", "dense", "sparse"] = option(
        "sparse: equal gradients but for rounding, faster and in less memory; auto: where it pays", "auto"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("gradient_accumulation_steps", self.gradient_accumulation_steps)
        if self.lr_scheduler is None:
            self.lr_scheduler = "multistep" if self.milestones else "cosine"
        if (self.max_steps is None) == (self.num_epochs is None):
            raise ValueError("Say how long to train: give either max_steps, num_epochs or a preset.")
        if self.lr_scheduler == "multistep" and not self.milestones:
            raise ValueError("A multistep schedule needs milestones.")

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


@dataclass(kw_only=True)
class KeepOptions:
    """Which weights become the trained model."""

    keep: Literal["last", "best"] = option("weights to save as the trained model", "last")

    def require_validation(self, validation: ValidationOptions) -> None:
        """Check that the best weights can be found.

        Raises:
            ValueError: if they are asked for, but nothing is validated.
        """
        if self.keep == "best" and validation.validation_split is None:
            raise ValueError("keep='best' needs a validation_split, on which to find the best weights.")


@dataclass(kw_only=True)
class OutcomeOptions(KeepOptions):
    """What becomes of the trained weights."""

    base_model: str | None = option(
        "what adapter-only weights are to be attached to; by default the model started from", None, metavar="ID"
    )
    push_to_hub: bool = option("upload the trained model", False)
    hub_model_id: str | None = option("where to, as owner/name", None, metavar="ID")
    hub_private: bool = option("make a private repository", False)

    def __post_init__(self) -> None:
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("push_to_hub needs hub_model_id, as owner/name.")


@dataclass(kw_only=True)
class TrainingOptions:
    """A training of a segmenter's adapter or mask generator.

    Raises:
        ValueError: if options contradict each other or are out of range.
    """

    stage: Stage = option(
        "what to train: the adapter on ground-truth masks (warmup, stage 1), the adapter on ground-truth and predicted "
        "masks (mixed, stage 2), or the mask generator"
    )
    preset: Literal["fcclip", "maft"] | None = option("published hyperparameters, which other options override", None)
    start: StartOptions = option_group(StartOptions, "the model")
    run: RunOptions = option_group(RunOptions, "the run")
    data: DataOptions = option_group(DataOptions, DATA, DATA_FLAGS)
    validation: SegmenterValidationOptions = option_group(SegmenterValidationOptions, "validation")
    cache: FeatureCacheOptions = option_group(FeatureCacheOptions, "kept features")
    augmentation: AugmentationOptions = option_group(AugmentationOptions, "augmentation")
    targets: StageOptions = option_group(StageOptions, "targets and losses")
    matching: MatchingOptions = option_group(MatchingOptions, "the mixed stage's predicted masks")
    masks: MaskLossOptions = option_group(MaskLossOptions, "the mask generator's losses")
    adapter: AdapterOptions = option_group(AdapterOptions, "the adapter")
    optimization: SegmenterOptimizationOptions = option_group(SegmenterOptimizationOptions, "optimisation")
    outcome: OutcomeOptions = option_group(OutcomeOptions, "the result")

    def __post_init__(self) -> None:
        if self.optimization.num_epochs is not None and self.data.streaming:
            raise ValueError("A stream has no length: give max_steps in place of num_epochs.")
        self.outcome.require_validation(self.validation)
        if self.cache.feature_cache is not None:
            if self.stage == "generator":
                raise ValueError("feature_cache is for the adapter's stages; a mask generator needs all feature maps.")
            if self.cache.max_bytes <= 0:
                raise ValueError("feature_cache needs feature_cache_gigabytes, the size that it may reach.")
            if self.augmentation.is_random:
                raise ValueError(
                    "feature_cache needs pictures that are the same in every epoch: set scale_range to 1 1 (or another "
                    "pair of equal numbers up to 1) and flip_probability to 0, and leave color_augmentation out."
                )

    @classmethod
    def complete(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values that were given, nested as the dataclasses are, and those of the preset that they name.

        Raises:
            ValueError: if the stage has no such preset.
        """
        nested: dict[str, Any] = {
            name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()
        }
        if nested.get("preset") is None:
            return nested
        try:
            preset = dict(PRESETS[nested["stage"], nested["preset"]])
        except KeyError:
            known = ", ".join(f"{stage} with {name}" for stage, name in PRESETS)
            raise ValueError(
                f"There is no preset {nested['preset']!r} for {nested.get('stage')!r}; there are: {known}."
            ) from None
        optimization = nested.setdefault("optimization", {})
        published_steps = preset["max_steps"]
        if optimization.get("num_epochs") is not None:
            preset["max_steps"] = None
        if optimization.get("max_steps", preset["max_steps"]) != published_steps and "milestones" in preset:
            preset["milestones"] = tuple(step / published_steps for step in preset["milestones"])
        for group, name in places(cls):
            if name in preset:
                nested.setdefault(group, {}).setdefault(name, preset[name])
        return nested

    def fingerprint(self) -> dict[str, Any]:
        """The options that decide what weights come out, but for rounding."""
        left_out = {"cache_dir", "num_workers", "gradient_accumulation_steps", "preset", "adapter_implementation"}
        groups = {"run", "validation", "cache", "outcome"}
        return {
            name: getattr(getattr(self, group) if group else self, name)
            for group, name in places(type(self))
            if group not in groups and name not in left_out
        }


@dataclass(kw_only=True)
class PretrainingStartOptions(StartOptions):
    """The model whose CLIP is trained."""

    model: str | None = option(  # type: ignore[assignment]
        "model whose CLIP to start from: a folder or a Hub id; by default the embedded miniature",
        None,
        metavar="DIR_OR_ID",
    )
    new_clip: bool = option("begin with random weights of the model's architecture, for all its parts", False)
    train_logit_scale: bool = option("train the factor between cosines and logits, too", True)


@dataclass(kw_only=True)
class CaptionDataOptions(DataOptions):
    """What a CLIP is trained on: annotated segments, or pictures with captions."""

    captions: bool = option(
        "the data set has pictures with captions (column caption_column) instead of annotated segments", False
    )
    caption_column: str | None = option(
        "column with captions, a text or a list of them; implies captions", None, metavar="NAME"
    )

    def __post_init__(self) -> None:
        self.captions = self.captions or self.caption_column is not None
        if self.captions and self.streaming:
            raise ValueError("Captioned pictures are not streamed: leave streaming out.")


@dataclass(kw_only=True)
class CropOptions:
    """The crops that a CLIP is shown."""

    crop_size: int = option("side of the crops, in pixels", 96)
    flip_probability: float = option("probability of a horizontal flip", 0.5)
    crops_per_picture: int = option("segments: crops of a picture each time it is read", 4)
    min_segment_area: int = option("segments: leave out smaller connected parts, in pixels", 256)
    context: tuple[float, float] = option(
        "segments: range of a crop's side, in square roots of the segment's area", (0.5, 1.5)
    )
    max_enlargement: float = option("segments: crops are not enlarged more than so many times", 2.0)
    min_crop_share: float = option("captions: least share of the picture's largest square in a crop", 0.5)

    def __post_init__(self) -> None:
        require_positive("crops_per_picture", self.crops_per_picture)


@dataclass(kw_only=True)
class PretrainingOptimizationOptions(OptimizationOptions):
    """How a CLIP is optimised: warm-up, then a cosine to 0."""

    batch_size: int = option("crops in a step, over all processes", 64)
    captions_per_crop: int = option("captions that a crop is compared with at a time, all competing", 1)
    max_steps: int = changed(OptimizationOptions, "max_steps")  # type: ignore[assignment]
    learning_rate: float = changed(OptimizationOptions, "learning_rate", 1e-3)
    warmup_steps: int = changed(OptimizationOptions, "warmup_steps", 50)
    adam_beta2: float = changed(OptimizationOptions, "adam_beta2", 0.98)
    text_learning_rate_scale: float = option("factor on the text tower's learning rate", 1.0)
    mixed_precision: Literal["no", "bf16", "fp16"] | None = changed(OptimizationOptions, "mixed_precision", "no")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("captions_per_crop", self.captions_per_crop)


@dataclass(kw_only=True)
class PretrainingOptions:
    """A contrastive pre-training of a CLIP.

    Raises:
        ValueError: if options contradict each other or are out of range.
    """

    start: PretrainingStartOptions = option_group(PretrainingStartOptions, "the model")
    run: RunOptions = option_group(RunOptions, "the run")
    data: CaptionDataOptions = option_group(CaptionDataOptions, DATA, DATA_FLAGS)
    validation: ValidationOptions = option_group(ValidationOptions, "validation")
    crops: CropOptions = option_group(CropOptions, "crops")
    optimization: PretrainingOptimizationOptions = option_group(PretrainingOptimizationOptions, "optimisation")
    outcome: KeepOptions = option_group(KeepOptions, "the result")

    def __post_init__(self) -> None:
        self.outcome.require_validation(self.validation)

    def pictures_per_process(self, num_processes: int) -> int:
        """Pictures that a process reads for a step.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        crops, batch_size = 1 if self.data.captions else self.crops.crops_per_picture, self.optimization.batch_size
        if batch_size % (num_processes * crops):
            raise ValueError(
                f"batch_size={batch_size} cannot be divided by {num_processes} process(es) × {crops} crops of a "
                f"picture: choose a multiple of {num_processes * crops}."
            )
        return batch_size // (num_processes * crops)

    def fingerprint(self) -> dict[str, Any]:
        """The options that decide what weights come out."""
        left_out = {"cache_dir", "num_workers"}
        return {
            name: getattr(getattr(self, group), name)
            for group, name in places(type(self))
            if group not in ("run", "validation", "outcome") and name not in left_out
        }


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


def require_positive(name: str, value: float | None) -> None:
    """Check an option that counts something.

    Raises:
        ValueError: if it is given and below 1.
    """
    if value is not None and value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def places(kind: type) -> Iterator[tuple[str, str]]:
    """Where each option of a command's dataclass is: its group, empty if it has none, and its name."""
    types_of = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        group = types_of[field.name]
        if dataclasses.is_dataclass(group):
            yield from ((field.name, of_group.name) for of_group in dataclasses.fields(group))
        else:
            yield "", field.name


def flat(options: TrainingOptions | PretrainingOptions) -> dict[str, Any]:
    """All options by name, as files and trackers take them; no two groups have an option of one name."""
    return {name: getattr(getattr(options, group) if group else options, name) for group, name in places(type(options))}


__all__ = [
    "PRESETS",
    "AdapterOptions",
    "AugmentationOptions",
    "CaptionDataOptions",
    "CropOptions",
    "DataOptions",
    "FeatureCacheOptions",
    "KeepOptions",
    "MaskLossOptions",
    "MatchingOptions",
    "OptimizationOptions",
    "OutcomeOptions",
    "PretrainingOptimizationOptions",
    "PretrainingOptions",
    "PretrainingStartOptions",
    "RunOptions",
    "SegmenterOptimizationOptions",
    "SegmenterValidationOptions",
    "StageOptions",
    "StartOptions",
    "TrainingOptions",
    "ValidationOptions",
    "flat",
    "places",
]
