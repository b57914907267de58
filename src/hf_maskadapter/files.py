"""Files that appear complete or not at all: written under a temporary name in their folder, then renamed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], sync: bool = False) -> None:
    """Write a file under a temporary name in its folder and rename it.

    Args:
        path: the file, replaced if it exists. Its folder must exist.
        write: writes the content to the open temporary file.
        sync: wait until the content is on the disk, so that not even a power cut leaves an empty file.

    Raises:
        OSError: if the file cannot be written; an earlier one of its name stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        with temporary.open("xb") as file:
            write(file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, sync: bool = False) -> None:
    """Write a text file in UTF-8, complete or not at all; `sync` as for [`write_atomically`].

    Raises:
        OSError: if the file cannot be written.
    """
    write_atomically(path, lambda file: file.write(text.encode()), sync)


def write_json(path: Path, content: Any, indent: int | None = None, sync: bool = False) -> None:
    """Write a JSON file, complete or not at all; `sync` as for [`write_atomically`].

    Raises:
        OSError: if the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n", sync)


__all__ = ["write_atomically", "write_json", "write_text"]
