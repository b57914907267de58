"""Numbers as Markdown shows them, in reports and on cards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def percent(value: float | None) -> str:
    """A fraction as per cent with one digit; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


__all__ = ["markdown_table", "percent"]
