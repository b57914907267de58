"""Tables that rename the keys of a state dict, applied by pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .errors import ConversionError

StateDict = Mapping[str, Tensor]


class Transposed(NamedTuple):
    """The tensor under this name, rows and columns exchanged."""

    target: str


class Split(NamedTuple):
    """The tensor cut along its first dimension into equal parts, one for each name."""

    targets: tuple[str, ...]


Target = str | Transposed | Split


def split_attention(prefix: str, parameter: str) -> Split:
    """Targets of a fused `in_proj` in PyTorch's order: query, key, value."""
    return Split(tuple(f"{prefix}.{part}_proj.{parameter}" for part in "qkv"))


@dataclass(frozen=True)
class _Row:
    pattern: re.Pattern[str]
    target: Target

    def apply(self, match: re.Match[str], tensor: Tensor) -> dict[str, Tensor]:
        fields: dict[str, str] = dict(match.groupdict())
        fields |= {f"{name}_minus_1": str(int(value) - 1) for name, value in fields.items() if value.isdigit()}
        if isinstance(self.target, str):
            return {self.target.format(**fields): tensor}
        if isinstance(self.target, Transposed):
            if tensor.ndim != 2:
                raise ConversionError(f"{match.string} should be a matrix, its shape is {tuple(tensor.shape)}.")
            return {self.target.target.format(**fields): tensor.T}
        targets = self.target.targets
        if tensor.ndim == 0 or len(tensor) % len(targets):
            raise ConversionError(
                f"{match.string} should fall into {len(targets)} equal parts, its shape is {tuple(tensor.shape)}."
            )
        return {target.format(**fields): part for target, part in zip(targets, tensor.chunk(len(targets)), strict=True)}


def _compile(template: str) -> re.Pattern[str]:
    """`{p}` stands for `weight` or `bias`, any other field for a number; a field repeated has one value."""
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{'weight|bias' if name == 'p' else '[0-9]+'})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)))


class Renamed(NamedTuple):
    """Result of a table: the new state dict, where each old key went, and the keys that no row knows."""

    state: dict[str, Tensor]
    targets: dict[str, tuple[str, ...]]
    unmatched: list[str]


class KeyTable:
    """Old names to new names.

    Args:
        rows: old name → new name, or a [`Transposed`] or [`Split`]. Fields in braces stand for a number, `{p}` for
            `weight` or `bias`; the new name repeats them, or says `{name_minus_1}` for a number counted from 1.
    """

    def __init__(self, rows: Mapping[str, Target]):
        self.rows = tuple(_Row(_compile(template), target) for template, target in rows.items())

    def rename(self, state: StateDict, source_prefix: str = "", target_prefix: str = "") -> Renamed:
        """Rename the keys that begin with a prefix; the others are left out.

        Raises:
            ConversionError: if a tensor cannot be split or transposed, or two keys get the same new name.
        """
        renamed: dict[str, Tensor] = {}
        targets: dict[str, tuple[str, ...]] = {}
        unmatched: list[str] = []
        for key, tensor in state.items():
            if not key.startswith(source_prefix):
                continue
            new = self._rename_one(key.removeprefix(source_prefix), tensor)
            if new is None:
                unmatched.append(key)
                continue
            new = {target_prefix + name: value for name, value in new.items()}
            twice = renamed.keys() & new.keys()
            if twice:
                raise ConversionError(f"{key} and another key both stand for {sorted(twice)[0]}.")
            renamed |= new
            targets[key] = tuple(new)
        return Renamed(renamed, targets, unmatched)

    def _rename_one(self, key: str, tensor: Tensor) -> dict[str, Tensor] | None:
        for row in self.rows:
            match = row.pattern.fullmatch(key)
            if match:
                return row.apply(match, tensor)
        return None


class Shapes:
    """Shapes of a converted state dict, for reading sizes from."""

    def __init__(self, state: StateDict):
        self._shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}

    def __contains__(self, key: str) -> bool:
        return key in self._shapes

    def size(self, key: str, dimension: int) -> int:
        """Size of one dimension.

        Raises:
            ConversionError: if the tensor is not there or has fewer dimensions.
        """
        shape = self._shapes.get(key)
        if shape is None:
            raise ConversionError(
                f"The checkpoint is incomplete: nothing in it stands for {key}, from which a size is read."
            )
        if not -len(shape) <= dimension < len(shape):
            raise ConversionError(f"What stands for {key} has shape {shape}, with too few dimensions.")
        return shape[dimension]

    def count(self, prefix: str) -> int:
        """Highest number that follows `prefix`, plus one; zero without any."""
        pattern = re.compile(re.escape(prefix) + r"([0-9]+)\.")
        numbers = [int(match[1]) for match in map(pattern.match, self._shapes) if match]
        return max(numbers, default=-1) + 1


def shorten(names: Iterable[str], limit: int = 3) -> str:
    """A few names of many, for messages."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


__all__ = [
    "KeyTable",
    "Renamed",
    "Shapes",
    "Split",
    "StateDict",
    "Transposed",
    "shorten",
    "split_attention",
]
