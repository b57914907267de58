"""Measuring a miniature on drawn scenes: counts of every scene by itself, so that intervals over scenes can be given.

Each scene's frozen features are computed once; then any number of adapters and ways to embed masks are measured on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_maskadapter.data.scenes import (
    CLASS_NAMES,
    STUFF,
    Scene,
    SceneConfig,
    draw_scene,
    scene_masks,
    split_combinations,
    split_seed,
)
from hf_maskadapter.model.configuration_maskadapter import MaskEmbedding, MaskPooling
from hf_maskadapter.model.mask_embedding import geometric_ensemble
from hf_maskadapter.model.modeling_mask_generator import MaskGeneratorOutput
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits
from hf_maskadapter.model.post_processing_maskadapter import post_process_semantic_segmentation
from hf_maskadapter.training.losses import pairwise_mask_iou
from lab.miniature.pretraining import normalize_pictures

METHODS = ("pooling/hard", "pooling/area", "pooling/any", "crop", "adapter")
"""Ways from a mask to an embedding that are compared."""

KINDS = ("base", "novel", "stuff", "all")
"""Things seen in training masks, things never seen in one, backgrounds, and all together."""

NORMAL_QUANTILE = 1.96
"""Standard errors on either side of a value in its 95 % interval."""

_NUM_THINGS = len(CLASS_NAMES) - len(STUFF)


@dataclass
class CachedScene:
    """A scene with what the frozen parts make of it.

    Args:
        pixel_values: normalised picture, `(1, 3, size, size)`.
        masks: the visible segments, `(num_masks, size, size)` bool.
        class_ids: their classes, positions in `CLASS_NAMES`.
        semantic_map: class of each pixel, -1 for void, `(size, size)`.
        dense_features: CLIP's dense features, `(1, feature_dim, height, width)`.
        generator_output: the mask generator's, with class logits for all of `CLASS_NAMES` and void.
    """

    pixel_values: Tensor
    masks: Tensor
    class_ids: Tensor
    semantic_map: Tensor
    dense_features: Tensor
    generator_output: MaskGeneratorOutput


def evaluation_scenes(split: str, count: int, config: SceneConfig | None = None) -> Iterator[Scene]:
    """Scenes of a split, all combinations."""
    for index in range(count):
        yield draw_scene((*split_seed(split), 0, index), config, split_combinations(split))


@torch.no_grad()
def cache_scenes(
    segmenter: MaskAdapterForOpenVocabularySegmentation, vocabulary: EncodedVocabulary, split: str, count: int
) -> list[CachedScene]:
    """Draw scenes of a split and run the frozen parts on them.

    Args:
        segmenter: in evaluation mode.
        vocabulary: all of `CLASS_NAMES`, encoded.
        split: of which scenes.
        count: how many, the first of them.
    """
    cached = []
    for scene in evaluation_scenes(split, count):
        masks, class_ids = scene_masks(scene)
        pixel_values = normalize_pictures([scene.picture])
        feature_maps = segmenter.clip.get_feature_maps(pixel_values)
        assert segmenter.mask_generator is not None
        output = segmenter.mask_generator(feature_maps, vocabulary, segmenter.get_void_embeds(), return_dict=True)
        semantic_map = torch.from_numpy(scene.semantic_map)
        cached.append(CachedScene(pixel_values, masks, torch.tensor(class_ids), semantic_map, feature_maps[-1], output))
    return cached


def kinds_of_classes(seen_classes: Tensor) -> np.ndarray:
    """(classes,) strings: the kind of each class."""
    kinds = np.where(seen_classes.numpy(), "base", "novel").astype(object)
    kinds[_NUM_THINGS:] = "stuff"
    return kinds


@dataclass
class Estimate:
    """A number measured on scenes, and how much each scene moves it.

    Args:
        value: in per cent.
        influences: `(scenes,)`, which add up to 0: the change of `value` with a scene's weight, to first order. The sum
            of their squares estimates the variance over scenes (Taylor linearisation, the infinitesimal jackknife).
            A bootstrap would lose the rare classes, the hardest ones, in many resamples, and its intervals of a mean
            over classes would lean upwards. Those of a class that occurs in k scenes are enlarged by √(k / (k - 1)),
            as a standard deviation of k values is. What only one scene shows tells nothing of its spread, and intervals
            of means over such rare classes stay a little too narrow.
        lowest: the least possible value; the highest is 100.
        scenes: how many scenes count, where `value` is one ratio of counts; else `None`.
    """

    value: float
    influences: np.ndarray
    lowest: float = 0.0
    scenes: int | None = None

    @classmethod
    def of_ratios(cls, numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
        """The mean of ratios of sums over scenes, each `(scenes,)` or `(scenes, ratios)`; 0 if nothing was counted."""
        numerators, denominators = (np.reshape(part, (len(part), -1)) for part in (numerators, denominators))
        totals = denominators.sum(axis=0)
        counted = totals > 0
        if not counted.any():
            return cls(0.0, np.zeros(len(numerators)))
        numerators, denominators, totals = numerators[:, counted], denominators[:, counted], totals[counted]
        ratios = numerators.sum(axis=0) / totals
        scenes = np.count_nonzero(denominators, axis=0)
        influences = (numerators - ratios * denominators) / totals * np.sqrt(scenes / np.maximum(scenes - 1, 1))
        of_one_ratio = int(scenes[0]) if len(totals) == 1 else None
        return cls(100 * float(ratios.mean()), 100 * influences.mean(axis=1), scenes=of_one_ratio)

    def __sub__(self, other: Estimate) -> Estimate:
        """A difference measured on the same scenes."""
        return Estimate(self.value - other.value, self.influences - other.influences, lowest=-100.0)

    def with_interval(self) -> dict[str, float]:
        """The value with its 95 % interval over scenes; Wilson's for as many scenes where the value is 0 or 100."""
        margin = NORMAL_QUANTILE * float(np.sqrt((self.influences**2).sum()))
        if self.scenes and self.value in (0.0, 100.0):
            margin = 100 * NORMAL_QUANTILE**2 / (self.scenes + NORMAL_QUANTILE**2)
        low, high = max(self.value - margin, self.lowest), min(self.value + margin, 100.0)
        return {"value": self.value, "low": low, "high": high}


@dataclass
class Accuracies:
    """Masks classified right, counted for each scene.

    Args:
        right, total: `(scenes, classes)` integers.
        kinds: kind of each class, `(classes,)`.
    """

    right: np.ndarray
    total: np.ndarray
    kinds: np.ndarray

    def estimates(self) -> dict[str, Estimate]:
        """Accuracy of each kind in per cent."""
        of_kind = {kind: (self.kinds == kind) | (kind == "all") for kind in KINDS}
        return {
            kind: Estimate.of_ratios(self.right[:, chosen].sum(axis=1), self.total[:, chosen].sum(axis=1))
            for kind, chosen in of_kind.items()
        }


@dataclass
class IntersectionsAndUnions:
    """Pixels of semantic maps, counted for each scene.

    Args:
        counts: `(scenes, 3, classes)` integers: intersection, truth, prediction.
        kinds: kind of each class, `(classes,)`.
    """

    counts: np.ndarray
    kinds: np.ndarray

    def estimates(self) -> dict[str, Estimate]:
        """Mean IoU in per cent over the classes of each kind that occur."""
        intersection, truth, prediction = self.counts.transpose(1, 0, 2)
        occurs = truth.any(axis=0)
        of_kind = {kind: ((self.kinds == kind) | (kind == "all")) & occurs for kind in KINDS}
        return {
            kind: Estimate.of_ratios(intersection[:, chosen], (truth + prediction - intersection)[:, chosen])
            for kind, chosen in of_kind.items()
        }


@torch.no_grad()
def mask_accuracies(
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    vocabulary: EncodedVocabulary,
    scenes: Sequence[CachedScene],
    methods: Sequence[str] = METHODS,
    masks_of: Callable[[int, CachedScene], tuple[Tensor, Tensor]] | None = None,
) -> dict[str, Accuracies]:
    """How often each method classifies masks right among all classes.

    Args:
        segmenter: in evaluation mode.
        vocabulary: all of `CLASS_NAMES`, encoded.
        scenes: see [`cache_scenes`].
        methods: see `METHODS`.
        masks_of: gives the masks `(num_masks, size, size)` of a scene and their class ids from its index and the
            scene; by default the ground truth.
    """
    classes = vocabulary.num_classes
    kinds = kinds_of_classes(vocabulary.seen_classes)
    right = {method: np.zeros((len(scenes), classes), dtype=np.int64) for method in methods}
    total = np.zeros((len(scenes), classes), dtype=np.int64)
    for index, scene in enumerate(scenes):
        masks, class_ids = (scene.masks, scene.class_ids) if masks_of is None else masks_of(index, scene)
        if len(masks) == 0:
            continue
        np.add.at(total[index], class_ids.numpy(), 1)
        for method in methods:
            name, _, form = method.partition("/")
            embedded = segmenter.embed_masks(
                scene.dense_features,
                masks[None].float(),
                False,
                scene.pixel_values,
                mask_embedding=cast(MaskEmbedding, name),
                mask_pooling=cast(MaskPooling | None, form or None),
                output_semantic_activation_maps=False,
            )
            logits = open_vocabulary_logits(
                embedded.mask_embeddings, vocabulary, None, segmenter.clip.get_logit_scale()
            )
            hits = logits[0].argmax(dim=-1) == class_ids
            np.add.at(right[method][index], class_ids[hits].numpy(), 1)
    return {method: Accuracies(right[method], total, kinds) for method in methods}


@torch.no_grad()
def segmentation_counts(
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    vocabulary: EncodedVocabulary,
    scenes: Sequence[CachedScene],
    methods: Sequence[str] = METHODS,
    ground_truth_masks: bool = False,
    ensemble_weights: tuple[float, float] | None = None,
) -> dict[str, IntersectionsAndUnions]:
    """Pixel counts of semantic maps.

    Args:
        segmenter: see [`mask_accuracies`].
        vocabulary: see [`mask_accuracies`].
        scenes: see [`mask_accuracies`].
        methods: see [`mask_accuracies`].
        ground_truth_masks: take the true masks rather than the generator's.
        ensemble_weights: with the generator's masks, weights of the mask embeddings in the geometric ensemble, for seen
            and for unseen classes; (1, 1) leaves the generator's class branch out but for void. Default the model's.
    """
    classes = vocabulary.num_classes
    counts = {method: np.zeros((len(scenes), 3, classes), dtype=np.int64) for method in methods}
    for index, scene in enumerate(scenes):
        truth = scene.semantic_map
        known = truth >= 0
        for method in methods:
            name, _, form = method.partition("/")
            output = segmenter(
                scene.pixel_values,
                vocabulary,
                masks=scene.masks[None].float() if ground_truth_masks else None,
                mask_embedding=name,
                mask_pooling=form or None,
                feature_maps=(scene.dense_features,),
                generator_output=None if ground_truth_masks else scene.generator_output,
                return_dict=True,
            )
            if ensemble_weights is not None:
                output.class_queries_logits = geometric_ensemble(
                    output.in_vocabulary_logits,
                    output.out_vocabulary_logits,
                    torch.where(vocabulary.seen_classes, *ensemble_weights),
                )
            predicted = post_process_semantic_segmentation(output)[0]
            for part, pixels in enumerate((truth[known & (truth == predicted)], truth[known], predicted[known])):
                counts[method][index, part] = torch.bincount(pixels, minlength=classes).numpy()
    kinds = kinds_of_classes(vocabulary.seen_classes)
    return {method: IntersectionsAndUnions(of_method, kinds) for method, of_method in counts.items()}


@torch.no_grad()
def generator_recall(scenes: Sequence[CachedScene], seen_classes: Tensor) -> dict[str, float]:
    """Share of the ground-truth masks that some proposal covers with an IoU of at least 0.5, and the mean best IoU."""
    kinds = kinds_of_classes(seen_classes)
    best: dict[str, list[float]] = {}
    for scene in scenes:
        logits = F.interpolate(
            scene.generator_output.masks_queries_logits,
            size=scene.masks.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        ious = pairwise_mask_iou(scene.masks, logits[0] > 0).amax(dim=1)
        for class_id, iou in zip(scene.class_ids.tolist(), ious.tolist(), strict=True):
            best.setdefault(kinds[class_id], []).append(iou)
    results = {f"recall/{kind}": float(np.mean(np.array(ious) >= 0.5)) for kind, ious in sorted(best.items())}
    results["mean_best_iou"] = float(np.mean([iou for ious in best.values() for iou in ious]))
    return results
