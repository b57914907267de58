"""Lets the scripts beside it call `lab/`, which is part of the project's folder but not of the installed package."""

from __future__ import annotations

import sys
from pathlib import Path


def run(*command: str) -> int:
    """Run a command of the laboratory with the process's arguments, and return its exit status.

    Args:
        *command: its name; by default the process's first argument.
    """
    here = Path(__file__).resolve().parent
    # In place of this folder, whose evaluate.py must not hide Hugging Face Evaluate.
    sys.path = [str(here.parent), *(path for path in sys.path if Path(path).resolve() != here)]
    from lab.commands import main

    return main([*command, *sys.argv[1:]])
