"""Exact, streaming metrics (names are imported when first used)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mask_average_precision import MaskAveragePrecision
    from .mean_iou import MeanIoU
    from .panoptic_quality import PanopticQuality
    from .streaming_metric import StreamingMetric

_MODULES = {
    "MaskAveragePrecision": "mask_average_precision",
    "MeanIoU": "mean_iou",
    "PanopticQuality": "panoptic_quality",
    "StreamingMetric": "streaming_metric",
}

__all__ = ["MaskAveragePrecision", "MeanIoU", "PanopticQuality", "StreamingMetric", "metric_path"]


def metric_path(name: str) -> str:
    """The folder of a metric for `evaluate.load`, which needs no network.

    Args:
        name: ``"mean_iou"``, ``"panoptic_quality"`` or ``"mask_average_precision"``.

    Raises:
        ValueError: There is no such metric.

    Example:

        >>> metric = evaluate.load(metric_path("mean_iou"), num_labels=150, ignore_index=255)
    """
    folder = Path(__file__).parent / "hub" / name
    if not (folder / f"{name}.py").is_file():
        names = sorted(path.stem for path in folder.parent.glob("*/*.py"))
        raise ValueError(f"There is no metric {name!r}; there are {', '.join(names)}.")
    return str(folder)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
