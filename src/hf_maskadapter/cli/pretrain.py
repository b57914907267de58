"""`maskadapter pretrain`: teach a model's CLIP the words of one's own domain, before `train` goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..training.options import PretrainingOptions
from .errors import EXIT_OK
from .options import Command, options_by_names, parse_command
from .train import HOW_TO_GO_ON, show_messages


def run(options: PretrainingOptions) -> int:
    """Train the CLIP of a model and save the model.

    Returns:
        The exit status.

    Raises:
        DataError: if the data cannot be read; the message names the sample.
        CheckpointError: if a checkpoint cannot be written or used.
        HubError: if the model cannot be fetched.
        ValueError: if options do not fit the model or the data.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when a checkpoint has been saved.
    """
    show_messages()
    from .pretraining import run_pretraining
    from .training import told_as_interruption

    with told_as_interruption(HOW_TO_GO_ON):
        result = run_pretraining(options)
    print(
        f"Trained {result.step} steps in {result.seconds:.0f} seconds, loss {result.loss:.3f}, batch accuracy "
        f"{result.accuracy:.3f}; see {options.run.output_dir}."
    )
    return EXIT_OK


COMMAND = Command(
    name="pretrain",
    summary="train a model's CLIP on captions, or on annotated segments and their class names",
    description="Train a model's CLIP on pictures with captions, or on annotated segments and their class names; on "
    "many processes with `accelerate launch -m hf_maskadapter.cli pretrain ...`. A run that was interrupted goes on "
    "exactly where its last checkpoint was: add --resume-from-checkpoint latest. Ctrl-C and SIGTERM save one.",
    options=PretrainingOptions,
    run=run,
    extra="train",
)


def pretraining_options(named: Mapping[str, Any]) -> PretrainingOptions:
    """Options by the names that they have on the command line, with `_` for `-`.

    Raises:
        TypeError: if there is no option of a name.
        ValueError: if options do not fit.
    """
    return options_by_names(PretrainingOptions, named)


def parse_options(words: Sequence[str]) -> PretrainingOptions:
    """Read a command line.

    Raises:
        SystemExit: if it is wrong, after a message.
    """
    return parse_command([COMMAND], [COMMAND.name, *words], __version__)[1]


__all__ = ["COMMAND", "parse_options", "pretraining_options", "run"]
