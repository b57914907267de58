"""`maskadapter train`: the paper's two stages of an adapter, or a mask generator, on one or many processes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..training.options import TrainingOptions
from .errors import EXIT_OK
from .options import Command, options_by_names, parse_command


def run(options: TrainingOptions) -> int:
    """Train and save the result.

    Returns:
        The exit status.

    Raises:
        DataError: if the data cannot be read or do not fit the vocabulary; the message names the sample.
        CheckpointError: if a checkpoint cannot be written or used.
        HubError: if the model cannot be fetched, or the Hub refuses an upload, which is tried before training.
        ValueError: if options do not fit the model or the data.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when a checkpoint has been saved.
    """
    show_messages()
    from .training import run_training, told_as_interruption

    with told_as_interruption(HOW_TO_GO_ON):
        result = run_training(options)
    print(f"Trained {result.step} steps in {result.seconds:.0f} seconds; see {options.run.output_dir}.")
    return EXIT_OK


HOW_TO_GO_ON = "to go on, give the command again with --resume-from-checkpoint latest"


def show_messages() -> None:
    """Show what the package logs about a run, on standard error."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hf_maskadapter").setLevel(logging.INFO)


COMMAND = Command(
    name="train",
    summary="train an adapter in its two stages, or a mask generator",
    description="Train a Mask-Adapter in its two stages, or a mask generator; on many processes with `accelerate "
    "launch -m hf_maskadapter.cli train ...`. A run that was interrupted goes on exactly where its last checkpoint "
    "was: add --resume-from-checkpoint latest. Ctrl-C and SIGTERM save one.",
    options=TrainingOptions,
    run=run,
    extra="train",
)


def training_options(named: Mapping[str, Any]) -> TrainingOptions:
    """Options by the names that they have on the command line, completed by the preset that they name.

    Args:
        named: values by name, with `_` for `-`; what is not given comes from the preset, or else is the default.

    Raises:
        TypeError: if there is no option of a name.
        ValueError: if the stage has no such preset, or options do not fit.
    """
    return options_by_names(TrainingOptions, named)


def parse_options(words: Sequence[str]) -> TrainingOptions:
    """Read a command line.

    Raises:
        SystemExit: if it is wrong, after a message.
    """
    return parse_command([COMMAND], [COMMAND.name, *words], __version__)[1]


__all__ = ["COMMAND", "HOW_TO_GO_ON", "parse_options", "run", "show_messages", "training_options"]
