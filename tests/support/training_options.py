"""The options of the training commands by their names alone, whatever group they are in."""

from __future__ import annotations

from hf_maskadapter.cli.options import build_options
from hf_maskadapter.training.options import PretrainingOptions, TrainingOptions, places


def training_options(**values):
    """Options of `train`."""
    return _options(TrainingOptions, values)


def pretraining_options(**values):
    """Options of `pretrain`."""
    return _options(PretrainingOptions, values)


def _options(kind, values):
    path_of = {name: f"{group}.{name}" if group else name for group, name in places(kind)}
    return build_options(kind, {path_of[name]: value for name, value in values.items()})
