"""Results as text, JSON and pictures, and what they must tell to be compared."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.samples import SegmentationSample
from ..hub.markdown import markdown_table, percent
from ..model.cpu_mlp import computes_in_int8
from ..model.vocabulary import Vocabulary
from ..provenance import content_hash, model_hash, versions
from ..visualization import overlay, side_by_side
from .predictors import NO_CLASS, Prediction, Predictor


def fingerprint(predictor: Predictor, dataset: Any, max_samples: int | None, num_worst: int) -> dict[str, Any]:
    """What two runs must have in common for the second to go on where the first stopped."""
    return {
        "model": model_hash(predictor.model),
        "settings": content_hash(predictor.describe()),
        "vocabulary": content_hash(predictor.vocabulary.to_dict()),
        "dataset": f"{dataset.name}, {len(dataset) if hasattr(dataset, '__len__') else 'stream'}",
        "tasks": list(predictor.tasks),
        "methods": [method.name for method in predictor.methods],
        "max_samples": max_samples,
        "num_worst": num_worst,
        "versions": versions(),
    }


def describe_run(predictor: Predictor, dataset: Any, model_name: str) -> dict[str, Any]:
    """What results must tell beside the numbers."""
    return {
        "model": {"name": model_name, "hash": model_hash(predictor.model), **predictor.describe()},
        "vocabulary": {
            "hash": content_hash(predictor.vocabulary.to_dict()),
            "classes": predictor.vocabulary.to_dict()["classes"],
        },
        "dataset": {"name": dataset.name, "has_instances": dataset.has_instances},
        "tasks": list(predictor.tasks),
        "device": str(next(predictor.model.parameters()).device),
        "dtype": "int8" if computes_in_int8(predictor.model) else str(next(predictor.model.parameters()).dtype),
        "versions": versions(),
    }


def without_nan(value: Any) -> Any:
    """A structure of dicts and lists with None in place of NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def class_map(prediction: Prediction) -> np.ndarray:
    """A prediction of any task as class indices, ``(height, width)``, `NO_CLASS` where there is none."""
    if prediction.semantic is not None:
        return np.asarray(_to_numpy(prediction.semantic))
    result = prediction.instance if prediction.panoptic is None else prediction.panoptic
    assert result is not None
    return result.label_map(NO_CLASS)


def picture_of(sample: SegmentationSample, maps: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> Image.Image:
    """Picture, annotation and the prediction of each method, side by side."""
    names = list(vocabulary.names)
    shape = sample.size
    pictures = [sample.image, overlay(sample.image, sample.label_map(NO_CLASS), labels=names, legend=False)]
    for classes in maps.values():
        drawn = classes if classes.shape == shape else np.full(shape, NO_CLASS)
        pictures.append(overlay(sample.image, drawn, labels=names, legend=False))
    rows = math.ceil(len(pictures) / 3)
    return side_by_side(pictures, titles=["picture", "annotation", *maps], columns=math.ceil(len(pictures) / rows))


def _to_numpy(value: Any) -> np.ndarray:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


_COLUMNS = {
    "mean_iou": "mIoU",
    "mean_iou_seen": "mIoU seen",
    "mean_iou_unseen": "mIoU unseen",
    "overall_accuracy": "pixel accuracy",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "pq_things": "PQ things",
    "pq_stuff": "PQ stuff",
    "ap": "mask AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "segment_accuracy": "segments right",
}


def summary_table(methods: Mapping[str, Mapping[str, Any]], published: Mapping[str, float] | None = None) -> str:
    """Each method's main numbers in per cent, and below them published ones (mIoU), as a Markdown table."""
    keys = [key for key in _COLUMNS if any(key in result["metrics"] for result in methods.values())]
    rows = [[name, *(percent(result["metrics"].get(key)) for key in keys)] for name, result in methods.items()]
    for name, value in (published or {}).items():
        rows.append([f"published: {name}", *(f"{value:.1f}" if key == "mean_iou" else "" for key in keys)])
    return markdown_table(["", *(_COLUMNS[key] for key in keys)], rows)


def class_table(result: Mapping[str, Any]) -> str:
    """A method's numbers for each class, as a Markdown table."""
    columns = {
        "iou": "IoU",
        "accuracy": "accuracy",
        "pq": "PQ",
        "sq": "SQ",
        "rq": "RQ",
        "ap": "mask AP",
    }
    rows = result["per_class"]
    keys = [key for key in columns if any(key in row for row in rows)]
    counts = [key for key in ("pixels", "segments", "segments_right") if any(key in row for row in rows)]
    seen = ["seen"] if any("seen" in row for row in rows) else []
    header = ["class", *seen, *(columns[key] for key in keys), *(key.replace("_", " ") for key in counts)]
    return markdown_table(
        header,
        [
            [
                row["name"],
                *("yes" if row[key] else "no" for key in seen),
                *(percent(row.get(key)) for key in keys),
                *(row.get(key, "") for key in counts),
            ]
            for row in rows
        ],
    )


def confusion_table(result: Mapping[str, Any]) -> str:
    """A method's most frequent confusions, as a Markdown table."""
    return markdown_table(
        ["annotated", "predicted", "pixels", "of the annotated class"],
        [
            [row["annotated"], row["predicted"], row["pixels"], f"{percent(row['share_of_annotated'])} %"]
            for row in result["confusions"]
        ],
    )


def report_text(title: str, methods: Mapping[str, Mapping[str, Any]], published: Mapping[str, float] | None) -> str:
    """The whole report in Markdown."""
    parts = [f"# {title}", "In per cent; – where nothing is annotated.", summary_table(methods, published)]
    for name, result in methods.items():
        parts += [f"## {name}", class_table(result)]
        if result["confusions"]:
            parts += ["Most frequent confusions:", confusion_table(result)]
    return "\n\n".join(parts) + "\n"


def remove_old_pictures(folder: Path) -> None:
    """Deletes the pictures that an earlier evaluation drew."""
    if folder.is_dir():
        for path in folder.glob("*.jpg"):
            os.unlink(path)


__all__ = [
    "class_map",
    "class_table",
    "confusion_table",
    "describe_run",
    "fingerprint",
    "picture_of",
    "remove_old_pictures",
    "report_text",
    "summary_table",
    "without_nan",
]
