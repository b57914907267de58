"""The command `maskadapter`: segment pictures or data sets, show a demo, convert released checkpoints.

Each command has a file with `add_parser(commands)`, which sets up its options and `run`, the function that does it.
PyTorch and Transformers are imported only when a command runs, so that `maskadapter --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import convert, demo, segment
from .errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_USER_ERROR, Parser, UserError

COMMANDS = (segment, demo, convert)
"""The modules of the commands, in the order in which the help lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default the process's.

    Returns:
        The exit status: 0, 1 if some of many pictures failed, 2 for a mistake of the user's, 130 if interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except UserError as error:
        print(f"maskadapter {args.command}: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"maskadapter {args.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SOME_FAILED


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(prog="maskadapter", description="Open-vocabulary segmentation with Mask-Adapter.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


__all__ = ["COMMANDS", "build_parser", "main"]
