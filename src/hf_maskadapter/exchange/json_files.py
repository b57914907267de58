"""JSON files of many pictures: read whole, written while their entries are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from .errors import ExchangeError


def write_json_lists(file: IO[bytes], head: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """Write a JSON object whose lists are made while they are written, one entry a line.

    Args:
        file: the open file.
        head: keys and values that come first.
        lists: keys and entries of the lists.
    """
    text = json.dumps(head, ensure_ascii=False)[1:-1]
    file.write(("{" + text).encode())
    separator = ", " if text else ""
    for key, entries in lists.items():
        file.write(f"{separator}{json.dumps(key)}: ".encode())
        write_json_list(file, entries)
        separator = ", "
    file.write(b"}\n")


def write_json_list(file: IO[bytes], entries: Iterable[Any]) -> None:
    """Write a JSON list whose entries are made while they are written, one a line."""
    file.write(b"[")
    separator = "\n"
    for entry in entries:
        file.write((separator + json.dumps(entry, ensure_ascii=False, separators=(",", ":"))).encode())
        separator = ",\n"
    file.write(b"\n]")


def read_json_file(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ExchangeError: if it is not there or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExchangeError(f"{path} cannot be read as JSON: {error}.") from error


__all__ = ["read_json_file", "write_json_list", "write_json_lists"]
