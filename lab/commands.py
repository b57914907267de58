"""The laboratory's commands, behind one door: `python -m lab COMMAND` in a clone, or a script of `scripts/`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hf_maskadapter import __version__
from hf_maskadapter.cli.errors import run_to_status
from hf_maskadapter.cli.options import parse_command
from lab.benchmarks.command import COMMANDS as BENCHMARKS
from lab.cards.command import COMMAND as WRITE_MODEL_CARDS
from lab.documentation.screenshot import COMMAND as APP_SCREENSHOT
from lab.miniature.command import COMMANDS as MINIATURE
from lab.serving.command import COMMAND as LOAD

COMMANDS = (*MINIATURE, *BENCHMARKS, LOAD, WRITE_MODEL_CARDS, APP_SCREENSHOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: by default the process's.

    Returns:
        The exit status, as of `maskadapter`.
    """
    command, options = parse_command(COMMANDS, sys.argv[1:] if arguments is None else arguments, __version__, "lab")
    return run_to_status(f"lab {command.name}", lambda: command.run(options))


__all__ = ["COMMANDS", "main"]
