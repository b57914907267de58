"""How a script ends, run by one process or several: mistakes in one line, and no process left in a group."""

from __future__ import annotations

import sys
from collections.abc import Callable

from .errors import leave_process_group


def run_script(work: Callable[[], str | None], *errors: type[Exception]) -> int:
    """Do a script's work and print what it returns, or in one line on stderr what went wrong that the user can mend.

    Args:
        work: what to do; returns what to print.
        errors: what the user can mend, beside wrong values, files, packages and numbers.

    Returns:
        The exit code: 0, or 1 after an error that the user can mend.
    """
    mendable: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, FloatingPointError, *errors)
    try:
        text = work()
    except mendable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        leave_process_group()
    if text:
        print(text)
    return 0


__all__ = ["leave_process_group", "run_script"]
