"""The options of the training commands by their names alone, whatever group they are in."""

from __future__ import annotations

from hf_maskadapter.cli.options import options_by_names
from hf_maskadapter.training.options import PretrainingOptions, TrainingOptions


def training_options(**values):
    """Options of `train`."""
    return options_by_names(TrainingOptions, values)


def pretraining_options(**values):
    """Options of `pretrain`."""
    return options_by_names(PretrainingOptions, values)
