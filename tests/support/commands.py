"""Commands in fresh processes, and what they say of mistakes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hf_maskadapter

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(hf_maskadapter.__file__).parent.parent), "HF_HUB_OFFLINE": "1"}


def command(*arguments) -> list[str]:
    """The words that run `maskadapter` in a fresh process."""
    return [sys.executable, "-m", "hf_maskadapter.cli", *map(str, arguments)]


def assert_one_error(capsys, *parts: str) -> None:
    """Check that one line on standard error is all that a command says, and that it has these parts."""
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert errors[0].startswith("maskadapter")
    for part in parts:
        assert part in errors[0]
