"""Results as text, JSON and pictures, and what they must tell to be compared: versions, preprocessing, model hash."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..data.samples import SegmentationSample
from ..files import write_text
from ..model.vocabulary import Vocabulary
from ..visualization import overlay, side_by_side
from .predictors import NO_CLASS, Prediction, Predictor

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_PACKAGES = (
    "hf-maskadapter",
    "torch",
    "transformers",
    "pillow",
    "numpy",
    "accelerate",
    "datasets",
    "pycocotools",
)
_TASK_NAMES = {"mean_iou": "semantic segmentation", "pq": "panoptic segmentation", "ap": "instance segmentation"}
_METRIC_NAMES = {"mean_iou": "mIoU", "pq": "PQ", "ap": "mask AP"}


def model_hash(model: torch.nn.Module) -> str:
    """Hash of a model's weights, which is the same wherever and in whatever files they are: names, types and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of everything that results depend on; Pillow's resampling alone changes them by about 0.2 mIoU."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package == "hf-maskadapter":
                from .. import __version__

                found[package] = __version__
    return found


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint(predictor: Predictor, dataset: Any, max_samples: int | None, num_worst: int) -> dict[str, Any]:
    """What two runs must have in common for the second to go on where the first stopped."""
    return {
        "model": model_hash(predictor.model),
        "settings": _hash(predictor.describe()),
        "vocabulary": _hash(predictor.vocabulary.to_dict()),
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
            "hash": _hash(predictor.vocabulary.to_dict()),
            "classes": predictor.vocabulary.to_dict()["classes"],
        },
        "dataset": {"name": dataset.name, "has_instances": dataset.has_instances},
        "tasks": list(predictor.tasks),
        "device": str(next(predictor.model.parameters()).device),
        "dtype": str(next(predictor.model.parameters()).dtype),
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
    result = prediction.panoptic or prediction.instance
    assert result is not None
    if "masks" in result:
        masks, labels = list(result["masks"]), list(result["labels"])
    else:
        segmentation = result["segmentation"]
        labels = [info.get("label_id", info.get("category_id")) for info in result["segments_info"]]
        if getattr(segmentation, "ndim", 3) == 2:
            ids = _to_numpy(segmentation)
            masks = [ids == info["id"] for info in result["segments_info"]]
        else:
            masks = [_to_numpy(mask) for mask in segmentation]
    if not masks:
        return np.zeros((0, 0), np.int64)
    classes = np.full(masks[0].shape, NO_CLASS, np.int64)
    for mask, label in zip(reversed(masks), reversed(labels), strict=True):  # the best instance comes first, and on top
        classes[mask] = label
    return classes


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


def percent(value: float | None) -> str:
    """A fraction as per cent with one digit; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


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


def eval_results(
    methods: Mapping[str, Mapping[str, Any]], dataset_name: str, dataset_type: str, split: str | None
) -> list[EvalResult]:
    """Main numbers in per cent, as a model card's metadata take them.

    Args:
        methods: Results of each method; only their ``metrics`` are read. What was not measured may be NaN or None.
        dataset_name: What readers call the data set.
        dataset_type: Its identifier.
        split: The split that was evaluated.
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="image-segmentation",
            task_name=_TASK_NAMES[key],
            dataset_type=dataset_type,
            dataset_name=dataset_name,
            dataset_split=split,
            metric_type=key,
            metric_name=_METRIC_NAMES[key] + (f" ({name})" if len(methods) > 1 else ""),
            metric_value=round(100 * value, 2),
        )
        for name, result in methods.items()
        for key in _METRIC_NAMES
        if (value := result["metrics"].get(key)) is not None and not math.isnan(value)
    ]


def card_with_results(card: str, model_name: str, new: Sequence[EvalResult]) -> str:
    """A model card with results in its metadata (``eval_results``), in place of earlier ones of the same kind.

    Args:
        card: The card, Markdown with or without metadata; may be empty.
        model_name: Name of the model in the results, if the card has none yet.
        new: The results.

    Raises:
        ValueError: The card's metadata cannot be read.
    """
    import yaml  # type: ignore[import-untyped]
    from huggingface_hub import ModelCard

    try:
        parsed: Any = ModelCard(card if card.startswith("---") else "---\n{}\n---\n" + card)
    except yaml.YAMLError as error:
        raise ValueError(f"The model card's metadata, between its lines of ---, are no YAML: {error}") from error

    def kind(entry: EvalResult) -> tuple[Any, ...]:
        return entry.dataset_type, entry.dataset_split, entry.metric_type, entry.metric_name

    replaced = {kind(entry) for entry in new}
    kept = [entry for entry in parsed.data.eval_results or [] if kind(entry) not in replaced]
    parsed.data.model_name = parsed.data.get("model_name") or model_name
    parsed.data.eval_results = [*kept, *new]
    return str(parsed)


def update_model_card(
    path: Path,
    model_name: str,
    dataset_name: str,
    dataset_type: str,
    split: str | None,
    methods: Mapping[str, Mapping[str, Any]],
) -> None:
    """Writes results into the metadata of a model card's file, see `card_with_results` and `eval_results`.

    Args:
        path: The card, a Markdown file; made if it is not there.
        model_name, dataset_name, dataset_type, split, methods: As there.
    """
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, card_with_results(card, model_name, eval_results(methods, dataset_name, dataset_type, split)))


def remove_old_pictures(folder: Path) -> None:
    """Deletes the pictures that an earlier evaluation drew."""
    if folder.is_dir():
        for path in folder.glob("*.jpg"):
            os.unlink(path)


__all__ = [
    "card_with_results",
    "class_map",
    "class_table",
    "confusion_table",
    "describe_run",
    "eval_results",
    "fingerprint",
    "markdown_table",
    "model_hash",
    "percent",
    "picture_of",
    "remove_old_pictures",
    "report_text",
    "summary_table",
    "update_model_card",
    "versions",
    "without_nan",
]
