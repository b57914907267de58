"""A folder appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from .errors import ConversionError


def check_output(output_dir: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder to write, checked before any work is done.

    Raises:
        ConversionError: if it exists and holds something that may not be replaced, or is a file.
    """
    output = Path(output_dir)
    if output.exists() and not output.is_dir():
        raise ConversionError(f"The output {output} is a file: name a folder to write.")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise ConversionError(
                f"The output folder {output} is not empty: name another one, or allow overwriting (overwrite=True)."
            )
        if not (output / "config.json").is_file():
            raise ConversionError(
                f"The output folder {output} is not empty and holds no model (no config.json): it is not replaced."
            )
    return output


@contextlib.contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A new folder beside `output` that takes its place when the block ends, and is removed if it fails.

    Raises:
        OSError: if a file cannot be written; the message names the output. The old folder is then as it was.
    """
    missing_parents = [parent for parent in output.absolute().parents if not parent.exists()]
    unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        _exchange(unfinished, output)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        for parent in missing_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError | SafetensorError):
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(f"Cannot write {output}: {reason}. Nothing was left behind.") from error
        raise


def _exchange(unfinished: Path, output: Path) -> None:
    replaced = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.replaced")
    if output.exists():
        output.rename(replaced)
    try:
        unfinished.rename(output)
    except OSError:
        if replaced.exists():
            replaced.rename(output)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


__all__ = ["check_output", "replacing"]
