"""The options of a contrastive pre-training of a CLIP, and the command line made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .options import DATA, DataArguments, build_option_parser, option

_CROP, _OPTIMIZER, _RUN = "crops", "optimisation", "the run"


@dataclass(kw_only=True)
class PretrainingArguments(DataArguments):
    """Options of a pre-training. Each is explained in its field's metadata and by `scripts/pretrain_clip.py --help`.

    Raises:
        ValueError: if options contradict each other or are out of range.
    """

    model: str | None = option(
        _RUN, "model whose CLIP to start from: a folder or a Hub id; by default the embedded miniature", None
    )
    model_revision: str | None = option(_RUN, "its version on the Hub", None)
    output_dir: str = option(_RUN, "folder for the checkpoint, the log and the model")

    captions: bool = option(
        DATA, "the data set has pictures with captions (column caption_column) instead of annotated segments", False
    )
    caption_column: str | None = option(DATA, "column with captions, a text or a list of them; implies captions", None)

    crop_size: int = option(_CROP, "side of the crops that the CLIP is shown, in pixels", 96)
    flip_probability: float = option(_CROP, "probability of a horizontal flip", 0.5)
    crops_per_picture: int = option(_CROP, "segments: crops of a picture each time it is read", 4)
    min_segment_area: int = option(_CROP, "segments: leave out smaller connected parts, in pixels", 256)
    context: tuple[float, float] = option(
        _CROP, "segments: range of a crop's side, in square roots of the segment's area", (0.5, 1.5)
    )
    max_enlargement: float = option(_CROP, "segments: crops are not enlarged more than so many times", 2.0)
    min_crop_share: float = option(_CROP, "captions: least share of the picture's largest square in a crop", 0.5)

    new_clip: bool = option(
        _OPTIMIZER, "begin with random weights of the model's architecture, for all its parts", False
    )
    batch_size: int = option(_OPTIMIZER, "crops in a step, over all processes", 64)
    captions_per_crop: int = option(_OPTIMIZER, "captions that a crop is compared with at a time, all competing", 1)
    max_steps: int = option(_OPTIMIZER, "length of the run in optimiser steps")
    learning_rate: float = option(_OPTIMIZER, "AdamW's learning rate, the peak of a cosine", 1e-3)
    warmup_steps: int = option(_OPTIMIZER, "steps in which it rises", 50)
    weight_decay: float = option(_OPTIMIZER, "AdamW's weight decay", 0.05)
    max_grad_norm: float = option(_OPTIMIZER, "norm that gradients are clipped at; 0: no clipping", 1.0)
    text_learning_rate_scale: float = option(_OPTIMIZER, "factor on the text tower's learning rate", 1.0)
    train_logit_scale: bool = option(_OPTIMIZER, "train the factor between cosines and logits, too", True)
    mixed_precision: Literal["no", "bf16"] = option(_OPTIMIZER, "precision of the towers", "no")
    seed: int = option(_OPTIMIZER, "seed of every random choice", 0)

    save_steps: int = option(_RUN, "write the checkpoint so often, besides at the end", 100)
    resume_from_checkpoint: Literal["latest"] | None = option(_RUN, "go on where an interrupted run stopped", None)

    def __post_init__(self) -> None:
        self.captions = self.captions or self.caption_column is not None
        for name in ("crops_per_picture", "batch_size", "captions_per_crop", "max_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.captions and self.streaming:
            raise ValueError("Captioned pictures are not streamed: leave streaming out.")

    def pictures_per_process(self, num_processes: int) -> int:
        """Pictures that a process reads for a step.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        crops = 1 if self.captions else self.crops_per_picture
        if self.batch_size % (num_processes * crops):
            raise ValueError(
                f"batch_size={self.batch_size} cannot be divided by {num_processes} process(es) × {crops} crops of a "
                f"picture: choose a multiple of {num_processes * crops}."
            )
        return self.batch_size // (num_processes * crops)

    def fingerprint(self) -> dict[str, Any]:
        """The options that decide what weights come out."""
        left_out = {"output_dir", "cache_dir", "num_workers", "save_steps", "resume_from_checkpoint"}
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in left_out
        }


def parse_pretraining_arguments(command_line: Sequence[str] | None = None) -> PretrainingArguments:
    """Read a command line.

    Raises:
        SystemExit: if it is wrong, after a message.
    """
    parser = build_option_parser(
        PretrainingArguments,
        "pretrain_clip.py",
        "Train a model's CLIP on pictures with captions, or on annotated segments and their class names; with "
        "`accelerate launch` on any number of processes.",
    )
    options = vars(parser.parse_args(command_line))
    try:
        return PretrainingArguments(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        )
    except ValueError as error:
        parser.error(str(error))


__all__ = ["PretrainingArguments", "parse_pretraining_arguments"]
