"""Models as graphs with a free vocabulary, for ONNX Runtime and OpenVINO; and what runs them without PyTorch.

[`export_model`] needs PyTorch and the extra `export`. [`ExportedSegmenter`] and the files that it imports do not, and
are also installed alone, as `hf-maskadapter-runtime`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporting import export_model
    from .manifest import ExportedModelError
    from .segmenter import ExportedSegmenter

_MODULE_OF = {
    "ExportedModelError": "manifest",
    "ExportedSegmenter": "segmenter",
    "export_model": "exporting",
}

__all__ = ["ExportedModelError", "ExportedSegmenter", "export_model"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
