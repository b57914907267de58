"""Exact, streaming metrics, and the evaluation of models with them (names are imported when first used).

[`MeanIoU`], [`PanopticQuality`] and [`MaskAveragePrecision`] are `evaluate.Metric` classes; [`evaluate_model`] measures
a model on a data set; [`BENCHMARKS`] holds the field's benchmarks.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmarks import BENCHMARKS, Benchmark
    from .evaluator import EvaluationResult, evaluate_model
    from .loading import load_predictor
    from .mask_average_precision import MaskAveragePrecision
    from .mean_iou import MeanIoU
    from .panoptic_quality import PanopticQuality
    from .predictors import MaskAdapterPredictor, Method, Predictor
    from .streaming_metric import StreamingMetric
    from .universal_predictor import UniversalPredictor

_MODULES = {
    "BENCHMARKS": "benchmarks",
    "Benchmark": "benchmarks",
    "EvaluationResult": "evaluator",
    "MaskAdapterPredictor": "predictors",
    "MaskAveragePrecision": "mask_average_precision",
    "MeanIoU": "mean_iou",
    "Method": "predictors",
    "PanopticQuality": "panoptic_quality",
    "Predictor": "predictors",
    "StreamingMetric": "streaming_metric",
    "UniversalPredictor": "universal_predictor",
    "evaluate_model": "evaluator",
    "load_predictor": "loading",
}

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "EvaluationResult",
    "MaskAdapterPredictor",
    "MaskAveragePrecision",
    "MeanIoU",
    "Method",
    "PanopticQuality",
    "Predictor",
    "StreamingMetric",
    "UniversalPredictor",
    "evaluate_model",
    "load_predictor",
    "metric_path",
]


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
