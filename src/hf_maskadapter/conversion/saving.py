"""Where a converted model goes."""

from __future__ import annotations

import os
from pathlib import Path

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


__all__ = ["check_output"]
