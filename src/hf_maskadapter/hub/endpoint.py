"""What makes a published model an Inference Endpoint: the handler that answers requests, and what it needs."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from .. import __name__ as package
from . import endpoint_handler

HANDLER_NAME = "handler.py"
REQUIREMENTS_NAME = "requirements.txt"
_NEEDED = ("huggingface_hub", "numpy", "pillow", "safetensors", "torch", "transformers")
"""What the code beside a published model imports."""


def endpoint_files() -> dict[str, bytes]:
    """The handler and its requirements, by their names in a repository's root."""
    return {
        HANDLER_NAME: Path(endpoint_handler.__file__).read_bytes(),
        REQUIREMENTS_NAME: "".join(f"{requirement}\n" for requirement in model_requirements()).encode(),
    }


def model_requirements() -> list[str]:
    """This package's own bounds of the packages that a model's code needs, without the package itself."""
    declared = {}
    for requirement in requires(package) or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if "extra ==" not in requirement:
            declared[name.lower().replace("-", "_")] = requirement
    return [declared[name] for name in _NEEDED]


__all__ = ["HANDLER_NAME", "REQUIREMENTS_NAME", "endpoint_files", "model_requirements"]
