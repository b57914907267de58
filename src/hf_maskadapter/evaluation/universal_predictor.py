"""Models of Transformers whose labels are fixed, behind the interface of the evaluation loop, for comparison."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..model.masks import binary_mask
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from ..provenance import describe_model
from .options import LabelMatching, Task
from .predictors import NO_CLASS, EvaluationItem, Method, Prediction, Predictor

if TYPE_CHECKING:
    from ..data import SegmentationSample


def match_labels(id2label: Mapping[int, str], vocabulary: Vocabulary, matching: LabelMatching = "names") -> list[int]:
    """Class index of each label of a model with fixed labels.

    Args:
        id2label: The model's labels.
        vocabulary: The data set's classes.
        matching: ``"names"``: by a name or synonym in common, capitals and punctuation aside; ``"order"``: the model's
            labels are the classes in the same order.

    Returns:
        For each label its class index; `NO_CLASS` for a label that is none of the classes.

    Raises:
        ValueError: No label fits, or the numbers differ where the order is to count.
    """
    labels = [id2label[index] for index in sorted(id2label)]
    if matching == "order":
        if len(labels) != len(vocabulary):
            raise ValueError(
                f"The model has {len(labels)} labels, the vocabulary {len(vocabulary)} classes: they cannot be the "
                "same in the same order. Match them by names."
            )
        return list(range(len(labels)))
    classes: dict[str, int] = {}
    for index, entry in enumerate(vocabulary):
        for name in (entry.name, *entry.synonyms):
            classes.setdefault(_plain(name), index)
    matched = [
        next((classes[_plain(name)] for name in (label, *label.split(",")) if _plain(name) in classes), NO_CLASS)
        for label in labels
    ]
    if all(index == NO_CLASS for index in matched):
        raise ValueError(
            f"None of the model's labels ({', '.join(labels[:5])}, ...) is a class of the vocabulary "
            f"({', '.join(vocabulary.names[:5])}, ...). If they are the same classes in the same order, say so "
            "(label_matching='order')."
        )
    return matched


def _plain(name: str) -> str:
    return " ".join("".join(character if character.isalnum() else " " for character in name.lower()).split())


@dataclass
class _PrepareForUniversal:
    def __call__(self, sample: SegmentationSample) -> tuple[None, tuple[int, ...]]:
        return None, sample.size


class UniversalPredictor(Predictor):
    """Any model of Transformers' `AutoModelForUniversalSegmentation` (Mask2Former, OneFormer, EoMT, ...).

    For comparison: its labels are fixed, and its post-processing is that of its own image processor.

    Args:
        model: The model, which is put into eval mode.
        processor: Its image processor, or OneFormer's processor.
        vocabulary: The data set's classes.
        tasks: Predictions to make.
        label_matching: How the model's labels become classes, see [`match_labels`].

    Raises:
        ValueError: The labels cannot be matched.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        vocabulary: Vocabulary,
        *,
        tasks: Sequence[Task] = ("semantic",),
        label_matching: LabelMatching = "names",
    ):
        self.model: Any = model.eval()
        self.processor = processor
        self.vocabulary = vocabulary
        self.tasks = tuple(tasks)
        self.methods = (Method(model.config.model_type),)
        self.prepare = _PrepareForUniversal()
        self.class_of_label = match_labels(model.config.id2label, vocabulary, label_matching)
        self._lookup = np.array([*self.class_of_label, NO_CLASS])  # the last for labels without a meaning, e.g. -1
        stuff = set(vocabulary.stuff_ids)
        self._stuff_labels = {label for label, index in enumerate(self.class_of_label) if index in stuff}

    def describe(self) -> dict[str, Any]:
        """What results tell about model, processor and labels."""
        return {
            **describe_model(self.model, self.processor),
            "class_of_label": self.class_of_label,
            "methods": [vars(method) for method in self.methods],
        }

    def predict(self, items: Sequence[EvaluationItem]) -> dict[str, list[Prediction]]:
        """Predictions for items of one group, under the name of the model's type."""
        sizes = [item.sample.size for item in items]
        images = [item.sample.image for item in items]
        predictions = [Prediction() for _ in items]
        outputs = None
        for task in self.tasks:
            if outputs is None or self._needs_task:
                outputs = self._forward(images, task)
            results = self._post_process(task, outputs, sizes)
            for prediction, result, size in zip(predictions, results, sizes, strict=True):
                setattr(prediction, task, self._relabel(task, result, size))
        return {self.methods[0].name: predictions}

    @property
    def _needs_task(self) -> bool:
        return "task_inputs" in inspect.signature(self.model.forward).parameters

    def _forward(self, images: list[Any], task: Task) -> Any:
        extra = {"task_inputs": [task] * len(images)} if self._needs_task else {}
        inputs = self.processor(images=images, return_tensors="pt", **extra)
        device = next(self.model.parameters()).device
        return self.model(**{name: _to_device(value, device) for name, value in inputs.items()})

    def _post_process(self, task: Task, outputs: Any, sizes: list[tuple[int, int]]) -> list[Any]:
        function = getattr(self.processor, f"post_process_{task}_segmentation")
        accepted = inspect.signature(function).parameters
        wanted: dict[str, Any] = {"target_sizes": sizes}
        if task == "panoptic":
            wanted |= {"label_ids_to_fuse": self._stuff_labels, "stuff_classes": sorted(self._stuff_labels)}
        elif task == "instance":
            wanted |= {"threshold": 0.0, "return_binary_maps": True}
        return function(outputs, **{name: value for name, value in wanted.items() if name in accepted})

    def _relabel(self, task: Task, result: Any, size: tuple[int, int]) -> Any:
        """A model's labels to classes; segments whose label is no class, or that have no pixel left, are dropped."""
        if task == "semantic":
            lookup = torch.from_numpy(self._lookup).to(result.device)
            return lookup[torch.where(result < len(self._lookup), result, NO_CLASS)]
        segmentation = result["segmentation"]
        is_map = isinstance(segmentation, Tensor) and segmentation.ndim == 2
        maps = segmentation.cpu().numpy() if isinstance(segmentation, Tensor) else segmentation
        found = []
        for position, info in enumerate(result["segments_info"]):
            category = self.class_of_label[info["label_id"]]
            if category == NO_CLASS or (task == "instance" and self.vocabulary.classes[category].is_thing is False):
                continue
            mask = binary_mask(maps == info["id"] if is_map else maps[position])
            if mask.any():
                found.append(Segment.of_class(self.vocabulary, category, mask, score=info["score"]))
        return Segments(found, found[0].mask.shape if found else size, self.vocabulary, task)


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_to_device(entry, device) for entry in value]
    return value.to(device) if isinstance(value, Tensor) else value


__all__ = ["UniversalPredictor", "match_labels"]
