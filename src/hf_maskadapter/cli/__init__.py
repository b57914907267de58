"""The command `maskadapter`: everything that the package does, behind one door.

Each command has a file with a [`Command`]: its options as a dataclass and `run`, the function that does it. PyTorch and
Transformers are imported only when a command runs, so that `maskadapter --help` answers at once.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__
from . import (
    annotate,
    app,
    convert,
    demo,
    evaluate,
    export,
    models,
    prepare,
    pretrain,
    publish,
    segment,
    serve,
    train,
)
from .errors import run_to_status
from .options import Command, make_parser, parse_command

COMMANDS: tuple[Command[Any], ...] = (
    segment.COMMAND,
    annotate.COMMAND,
    app.COMMAND,
    demo.COMMAND,
    models.COMMAND,
    convert.COMMAND,
    export.COMMAND,
    prepare.COMMAND,
    pretrain.COMMAND,
    train.COMMAND,
    evaluate.COMMAND,
    serve.COMMAND,
    publish.COMMAND,
)
"""The commands, in the order in which the help lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default the process's.

    Returns:
        The exit status: 0, 1 if some of many pictures failed, 2 for a mistake of the user's, 130 after Ctrl-C, 143
        after SIGTERM.
    """
    if argv is None:  # the process is this command's: at its end, nothing needs to look through what was imported
        atexit.register(gc.freeze)
    arguments = segment.old_spelling_as_annotate(sys.argv[1:] if argv is None else argv)
    command, options = parse_command(COMMANDS, arguments, __version__)
    return run_to_status(f"maskadapter {command.name}", lambda: command.run(options), command.extra)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    return make_parser(COMMANDS, __version__)


__all__ = ["COMMANDS", "build_parser", "main"]
