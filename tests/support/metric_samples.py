"""Random pictures for the tests of metrics: label maps, panoptic maps, instance masks."""

from __future__ import annotations

from typing import Any

import numpy as np


def random_label_maps(
    seed: int, num_labels: int, ignored: tuple[int, ...] = (), missed: tuple[int, ...] = (), offset: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One to four predictions and annotations of different small sizes, in which only some classes occur."""
    rng = np.random.default_rng(seed)
    present = rng.choice(num_labels, size=min(num_labels, int(rng.integers(1, 7))), replace=False)
    predictions, references = [], []
    for _ in range(rng.integers(1, 5)):
        size = tuple(rng.integers(1, 8, 2))
        reference = rng.choice(np.concatenate([present + offset, np.array(ignored, int)]), size)
        prediction = np.where(rng.random(size) < 0.5, reference - offset, rng.choice([*present, *missed], size))
        prediction = np.where(
            (prediction < 0) | (prediction >= num_labels), rng.choice([*present, *missed]), prediction
        )
        predictions.append(prediction)
        references.append(reference)
    return predictions, references


def random_panoptic(
    seed: int, categories: dict[int, bool], *, crowd: bool = True, predicted_void: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One picture: a prediction that is a disturbed copy of the annotation; at most one segment per stuff category."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(4, 16, 2)
    annotated = _paint(rng, np.zeros((height, width), np.int64), rng.integers(0, 7))
    reference = _describe(rng, annotated, categories)
    if crowd:
        for info in reference["segments_info"]:
            info["iscrowd"] = int(rng.random() < 0.25)
    predicted = np.roll(annotated, rng.integers(-1, 2, 2), (0, 1))
    predicted = _paint(rng, predicted, rng.integers(0, 3))
    if not predicted_void:
        predicted[predicted == 0] = predicted.max() + 1
    prediction = _describe(rng, predicted, categories)
    known = {info["id"]: info["category_id"] for info in reference["segments_info"]}
    taken = set()
    for info in prediction["segments_info"]:
        category = known.get(info["id"])
        if category is not None and rng.random() < 0.8 and (categories[category] or category not in taken):
            info["category_id"] = category
        if not categories[info["category_id"]] and info["category_id"] in taken:
            info["category_id"] = next(c for c, is_thing in categories.items() if is_thing)
        taken.add(info["category_id"])
    return prediction, reference


def random_instances(seed: int, categories: list[int], size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One picture of annotated boxes and scored, shifted, partly mislabelled copies; scores repeat."""
    rng = np.random.default_rng(seed)
    annotated = [_box(rng, size) for _ in range(rng.integers(0, 5))]
    reference = {
        "masks": np.array(annotated).reshape(-1, *size),
        "labels": rng.choice(categories, len(annotated)),
        "iscrowd": (rng.random(len(annotated)) < 0.2).astype(int),
    }
    predicted, labels = [], []
    for mask, label in zip(annotated, reference["labels"], strict=True):
        for _ in range(rng.integers(0, 3)):
            predicted.append(np.roll(mask, rng.integers(-3, 4, 2), (0, 1)))
            labels.append(label if rng.random() < 0.8 else rng.choice(categories))
    for _ in range(rng.integers(0, 3)):
        predicted.append(_box(rng, size))
        labels.append(rng.choice(categories))
    prediction = {
        "masks": np.array(predicted).reshape(-1, *size),
        "labels": np.array(labels, int),
        "scores": rng.integers(1, 8, len(predicted)) / 8,
    }
    return prediction, reference


def _box(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    top, left = (int(rng.integers(0, extent)) for extent in size)
    height, width = (int(rng.integers(1, extent + 1)) for extent in size)
    mask[top : top + height, left : left + width] = True
    return mask


def _paint(rng: np.random.Generator, segment_ids: np.ndarray, number: int) -> np.ndarray:
    segment_ids = segment_ids.copy()
    for _ in range(number):
        segment_ids[_box(rng, segment_ids.shape)] = segment_ids.max() + 1
    return segment_ids


def _describe(rng: np.random.Generator, segment_ids: np.ndarray, categories: dict[int, bool]) -> dict[str, Any]:
    things = [category for category, is_thing in categories.items() if is_thing]
    stuff = [category for category, is_thing in categories.items() if not is_thing]
    infos = []
    for segment_id in np.unique(segment_ids[segment_ids > 0]).tolist():
        category = int(rng.choice(things))
        if stuff and rng.random() < 0.5:
            category = stuff.pop(int(rng.integers(len(stuff))))
        infos.append({"id": segment_id, "category_id": category})
    return {"segmentation": segment_ids, "segments_info": infos}
