"""How training scripts end until they are commands."""

from __future__ import annotations

import sys
from collections.abc import Callable

from .errors import leave_process_group, one_line


def run_script(work: Callable[[], str | None], *_: type[Exception]) -> int:
    """Do a script's work and print what it returns, or in one line on stderr what went wrong; returns 0 or 1."""
    try:
        text = work()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    finally:
        leave_process_group()
    if text:
        print(text)
    return 0
