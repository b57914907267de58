"""Models behind one interface for the evaluation loop: pictures in, semantic, panoptic and instance predictions out."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..model.cpu_mlp import computes_in_int8
from ..model.post_processing_maskadapter import post_process_semantic_segmentation, segment
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from ..provenance import describe_model
from .options import MaskSource, Task

if TYPE_CHECKING:
    from ..data import SegmentationSample
    from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation

TASKS: tuple[Task, ...] = ("semantic", "panoptic", "instance")

NO_CLASS = -1
"""Class index of pixels that a prediction leaves without a class, and of ignored pixels in annotations."""


@dataclass(frozen=True)
class Method:
    """One way to classify masks, to be compared with others on the same masks.

    Args:
        name: what results call it.
        mask_embedding: ``"adapter"``, ``"pooling"``, ``"crop"``, or None for the model's own choice.
        mask_pooling: form of pooling, ``"hard"``, ``"area"`` or ``"any"``, or None for the model's own choice.
    """

    name: str
    mask_embedding: str | None = None
    mask_pooling: str | None = None

    @classmethod
    def parse(cls, text: str) -> Method:
        """Reads ``"adapter"``, ``"crop"``, ``"pooling"``, ``"pooling-area"`` and the like.

        Raises:
            ValueError: Another text.
        """
        embedding, _, form = text.partition("-")
        known = embedding in ("adapter", "pooling", "crop") and form in ("", "hard", "area", "any")
        if not known or (form and embedding != "pooling") or text.endswith("-"):
            raise ValueError(
                f"mask_embedding {text!r} is unknown; use adapter, crop, pooling, or pooling-hard, pooling-area, "
                "pooling-any for a form other than the model's own."
            )
        return cls(text, embedding, form or None)


@dataclass
class Prediction:
    """What a model says about one picture, at the annotation's size; parts of tasks that were not asked for are None.

    Attributes:
        semantic: ``(height, width)`` class indices, `NO_CLASS` where there is none.
        panoptic: Segments that do not overlap.
        instance: Objects with scores, which may overlap.
        segment_labels: Where masks came from the annotation: predicted class of each of its segments, in their order.
    """

    semantic: Any = None
    panoptic: Segments | None = None
    instance: Segments | None = None
    segment_labels: list[int] | None = None


@dataclass
class EvaluationItem:
    """A sample on its way through the loop.

    Attributes:
        index: Its place in the data set.
        sample: Picture and annotation.
        inputs: What `Predictor.prepare` made of it, without annotation.
        group: Items of one group may form a batch: their prepared pictures have the same size.
    """

    index: int
    sample: SegmentationSample
    inputs: Any
    group: tuple[int, ...]

    def pin_memory(self) -> EvaluationItem:
        """The same with inputs in page-locked memory, which a GPU reads by itself; `DataLoader` calls it."""
        if not isinstance(self.inputs, dict):
            return self
        pinned = {
            name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in self.inputs.items()
        }
        return replace(self, inputs=pinned)


class Predictor(abc.ABC):
    """A model, its preprocessing and post-processing.

    Attributes:
        vocabulary: Classes that predictions refer to.
        methods: What is compared; at least one.
        tasks: Predictions to make.
        seen_classes: Which classes the model saw in training, if that is known.
        prepare: Turns a sample into model inputs and its group. Runs in worker processes, so it holds no model.
    """

    model: torch.nn.Module
    vocabulary: Vocabulary
    methods: tuple[Method, ...]
    tasks: tuple[Task, ...]
    seen_classes: list[bool] | None = None
    prepare: Callable[[SegmentationSample], tuple[Any, tuple[int, ...]]]

    @abc.abstractmethod
    def predict(self, items: Sequence[EvaluationItem]) -> dict[str, list[Prediction]]:
        """Predictions of each method, by its name, for items of one group."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What results must tell about model and preprocessing, for JSON."""

    def to(self, device: torch.device) -> None:
        """Moves the model."""
        self.model.to(device)


@dataclass
class _PrepareForMaskAdapter:
    image_processor: Any
    with_masks: bool

    def __call__(self, sample: SegmentationSample) -> tuple[dict[str, Tensor], tuple[int, ...]]:
        masks = None
        if self.with_masks:
            ids = np.array([segment.id for segment in sample.segments_info], np.int64)
            masks = [sample.segmentation[None] == ids[:, None, None]]
        inputs = dict(self.image_processor(images=sample.image, masks=masks, return_tensors="pt"))
        return inputs, tuple(inputs["pixel_values"].shape[1:])


class MaskAdapterPredictor(Predictor):
    """A [`MaskAdapterForOpenVocabularySegmentation`], with one or several ways to classify its masks.

    The CLIP's features and the generator's masks are computed once for all methods.

    Args:
        model: The model, which is put into eval mode.
        processor: Its processor.
        vocabulary: Classes to predict, those of the data set.
        tasks: Predictions to make.
        methods: Ways to classify masks; default: the model's own.
        masks: ``"generator"``, or ``"annotation"`` to classify the annotated segments themselves (the paper's upper
            bound). Then every annotated segment gets the class of its highest score, and no pixel changes.
        resize_scores: Semantic scores are computed at the input's size and resized, instead of the masks: as published
            where only semantic results were measured.
        object_threshold, overlap_threshold, instance_top_k: Of post-processing, instead of the model's.
        templates: Prompt templates instead of the processor's.
        vocabulary_batch_size: Prompts encoded at a time.

    Raises:
        ValueError: Generated masks are wanted of a model without generator, or the adapter of one without adapter.
    """

    def __init__(
        self,
        model: MaskAdapterForOpenVocabularySegmentation,
        processor: Any,
        vocabulary: Vocabulary,
        *,
        tasks: Sequence[Task] = ("semantic",),
        methods: Sequence[Method] = (),
        masks: MaskSource = "generator",
        resize_scores: bool = False,
        object_threshold: float | None = None,
        overlap_threshold: float | None = None,
        instance_top_k: int | None = None,
        templates: Sequence[str] | None = None,
        vocabulary_batch_size: int = 256,
    ):
        config = model.config
        self.model: Any = model.eval()
        self.processor = processor
        self.vocabulary = vocabulary
        self.tasks = tuple(tasks)
        self.methods = tuple(methods) or (Method(str(config.mask_embedding)),)
        self.masks = masks
        if masks == "generator" and model.mask_generator is None:
            raise ValueError("This model has no mask generator: evaluate it on annotated masks (masks='annotation').")
        if model.adapter is None and any(method.mask_embedding == "adapter" for method in self.methods):
            raise ValueError("This model has no adapter: evaluate it with mask_embedding 'pooling' or 'crop'.")
        self.resize_scores = resize_scores
        self.object_threshold = config.object_threshold if object_threshold is None else object_threshold
        self.overlap_threshold = config.overlap_threshold if overlap_threshold is None else overlap_threshold
        self.instance_top_k = config.instance_top_k if instance_top_k is None else instance_top_k
        self.templates = tuple(templates or processor.prompt_templates)
        self.vocabulary_batch_size = vocabulary_batch_size
        self.prepare = _PrepareForMaskAdapter(processor.image_processor, with_masks=masks == "annotation")
        if config.training_vocabulary is not None:
            self.seen_classes = vocabulary.seen(config.training_vocabulary)
        self._encoded: Any = None

    def to(self, device: torch.device) -> None:
        """Move the model; the vocabulary is encoded anew there.

        Raises:
            ValueError: The model is to compute in int8, and the device is not a CPU.
        """
        if computes_in_int8(self.model) and device.type != "cpu":
            raise ValueError(f"int8 is for CPUs, and the device is {device}: choose bfloat16 there.")
        if self.model.device != device:
            self.model.to(device)
            self._encoded = None

    def describe(self) -> dict[str, Any]:
        """What results tell about model, processor and options."""
        return {
            **describe_model(self.model, self.processor),
            **({"products": "int8"} if computes_in_int8(self.model) else {}),
            "prompt_templates": list(self.templates),
            "masks": self.masks,
            "methods": [vars(method) for method in self.methods],
            "post_processing": {
                "resize_scores": self.resize_scores,
                "object_threshold": self.object_threshold,
                "overlap_threshold": self.overlap_threshold,
                "instance_top_k": self.instance_top_k,
            },
        }

    def encode_vocabulary(self) -> Any:
        """The encoded vocabulary, made when it is first needed."""
        if self._encoded is None:
            with torch.inference_mode():
                self._encoded = self.model.encode_vocabulary(
                    self.vocabulary, self.processor, self.templates, self.vocabulary_batch_size
                )
        return self._encoded

    def predict(self, items: Sequence[EvaluationItem]) -> dict[str, list[Prediction]]:
        """Predictions of each method, by its name, for items of one group."""
        device = self.model.void_embedding.device
        pixel_values, pixel_mask = (
            torch.cat([item.inputs[name].to(device, non_blocking=True) for item in items])
            for name in ("pixel_values", "pixel_mask")
        )
        inputs = {"pixel_values": pixel_values.to(self.model.dtype), "pixel_mask": pixel_mask}
        inputs["vocabulary"] = self.encode_vocabulary()
        if self.masks == "annotation":
            return self._classify_annotated(items, inputs)
        inputs["feature_maps"] = self.model.clip.get_feature_maps(inputs["pixel_values"])
        results = {}
        for method in self.methods:
            outputs = self.model(
                **inputs,
                mask_embedding=method.mask_embedding,
                mask_pooling=method.mask_pooling,
                skip_void_masks=self.tasks == ("panoptic",),
                return_dict=True,
            )
            inputs["generator_output"] = outputs.generator_output
            results[method.name] = self._post_process(outputs, [item.sample.size for item in items])
        return results

    def _post_process(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[Prediction]:
        predictions = [Prediction() for _ in sizes]
        if "semantic" in self.tasks:
            maps = post_process_semantic_segmentation(outputs, sizes, resize_scores=self.resize_scores)
            for prediction, semantic in zip(predictions, maps, strict=True):
                prediction.semantic = semantic
        if "panoptic" in self.tasks:
            panoptic = segment(
                outputs,
                "panoptic",
                self.vocabulary,
                sizes,
                threshold=self.object_threshold,
                overlap_mask_area_threshold=self.overlap_threshold,
            )
            for prediction, segments in zip(predictions, panoptic, strict=True):
                prediction.panoptic = segments
        if "instance" in self.tasks:
            instances = segment(outputs, "instance", self.vocabulary, sizes, top_k=self.instance_top_k)
            for prediction, segments in zip(predictions, instances, strict=True):
                prediction.instance = segments
        return predictions

    def _classify_annotated(
        self, items: Sequence[EvaluationItem], inputs: dict[str, Any]
    ) -> dict[str, list[Prediction]]:
        """Each annotated segment's most probable class; void plays no part."""
        counts = [int(item.inputs["num_masks"]) for item in items]
        largest = max(counts)
        scores: dict[str, Tensor] = {}
        if largest:
            padded = [
                torch.nn.functional.pad(item.inputs["masks"], (0, 0, 0, 0, 0, largest - count))
                for item, count in zip(items, counts, strict=True)
            ]
            inputs["masks"] = torch.cat(padded).to(inputs["pixel_values"].device)
            inputs["feature_maps"] = self.model.clip.get_feature_maps(inputs["pixel_values"])
            for method in self.methods:
                outputs = self.model(
                    **inputs, mask_embedding=method.mask_embedding, mask_pooling=method.mask_pooling, return_dict=True
                )
                scores[method.name] = outputs.class_queries_logits[..., :-1].float().softmax(dim=-1)
        results: dict[str, list[Prediction]] = {}
        for method in self.methods:
            results[method.name] = []
            for position, (item, count) in enumerate(zip(items, counts, strict=True)):
                probabilities = scores[method.name][position, :count] if largest else torch.zeros(0, 1)
                best = probabilities.max(dim=-1) if count else (torch.zeros(0), torch.zeros(0, dtype=torch.long))
                prediction = label_segments(item.sample, best[1].tolist(), best[0].tolist(), self.vocabulary)
                results[method.name].append(prediction)
        return results


def label_segments(
    sample: SegmentationSample, labels: Sequence[int], scores: Sequence[float], vocabulary: Vocabulary
) -> Prediction:
    """A prediction that keeps a sample's annotated segments and gives each a class.

    Args:
        sample: Picture and annotation.
        labels: Class of each of the sample's segments, in their order.
        scores: Its score.
        vocabulary: Says which classes are stuff, whose segments merge in the panoptic prediction.
    """
    highest = max((annotated.id for annotated in sample.segments_info), default=0)
    class_of = np.full(highest + 1, NO_CLASS, np.int64)
    stuff = set(vocabulary.stuff_ids)
    found: list[Segment] = []
    place_of_stuff: dict[int, int] = {}
    for annotated, label, score in zip(sample.segments_info, labels, scores, strict=True):
        class_of[annotated.id] = label
        if annotated.iscrowd:  # a region, not an object: only its class can be right or wrong
            continue
        mask = sample.segmentation == annotated.id
        if label in place_of_stuff:
            first = found[place_of_stuff[label]]
            found[place_of_stuff[label]] = replace(first, mask=first.mask | mask)
            continue
        if label in stuff:
            place_of_stuff[label] = len(found)
        found.append(Segment.of_class(vocabulary, label, mask, score=score))
    things = [one for one in found if one.class_id not in stuff]
    return Prediction(
        semantic=class_of[sample.segmentation],
        panoptic=Segments(found, sample.size, vocabulary, "panoptic"),
        instance=Segments(things, sample.size, vocabulary, "instance"),
        segment_labels=list(labels),
    )


__all__ = [
    "NO_CLASS",
    "TASKS",
    "EvaluationItem",
    "MaskAdapterPredictor",
    "MaskSource",
    "Method",
    "Prediction",
    "Predictor",
    "Task",
    "label_segments",
]
