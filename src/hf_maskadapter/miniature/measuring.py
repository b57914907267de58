"""Measuring a miniature on drawn scenes: counts of every scene by itself, so that intervals over scenes can be given.

Each scene's frozen features are computed once; then any number of adapters and ways to embed masks are measured on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes import CLASS_NAMES, STUFF, Scene, SceneConfig, draw_scene, split_combinations, split_seed
from ..loss_maskadapter import pairwise_mask_iou
from ..modeling_mask_generators import MaskGeneratorOutput
from ..modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation, log_with_void
from ..modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits
from .pretraining import normalise_pictures

METHODS = ("pooling/hard", "pooling/area", "pooling/any", "crop", "adapter")
"""Ways from a mask to an embedding that are compared."""

KINDS = ("base", "novel", "stuff", "all")
"""Things seen in training masks, things never seen in one, backgrounds, and all together."""

INTERVAL = (2.5, 97.5)
RESAMPLES = 1000

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


def scene_masks(scene: Scene) -> tuple[Tensor, list[int]]:
    """(masks, size, size) bool of a scene's segments, and their class ids (positions in `CLASS_NAMES`)."""
    ids = np.array([segment["id"] for segment in scene.segments_info], dtype=np.int32)
    masks = torch.from_numpy(scene.panoptic_map[None] == ids[:, None, None])
    return masks, [segment["category_id"] for segment in scene.segments_info]


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
        split, count: which scenes.
    """
    cached = []
    for scene in evaluation_scenes(split, count):
        masks, class_ids = scene_masks(scene)
        pixel_values = normalise_pictures([scene.picture])
        feature_maps = segmenter.clip.get_feature_maps(pixel_values)
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
class Accuracies:
    """Masks classified right, counted for each scene.

    Args:
        right, total: `(scenes, classes)` integers.
        kinds: kind of each class, `(classes,)`.
    """

    right: np.ndarray
    total: np.ndarray
    kinds: np.ndarray

    def values(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Accuracy of each kind in per cent; `weights` `(resamples, scenes)` say how often each scene counts."""
        weights = np.ones((1, len(self.right))) if weights is None else weights
        of_kind = {kind: (self.kinds == kind) | (kind == "all") for kind in KINDS}
        return {
            kind: 100
            * (weights @ self.right[:, chosen].sum(axis=1))
            / np.maximum(weights @ self.total[:, chosen].sum(axis=1), 1)
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

    def values(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Mean IoU in per cent over the classes of each kind that occur; `weights` as in [`Accuracies`]."""
        weights = np.ones((1, len(self.counts))) if weights is None else weights
        scenes, parts, classes = self.counts.shape
        totals = (weights @ self.counts.reshape(scenes, -1)).reshape(-1, parts, classes)
        intersection, truth, prediction = totals.transpose(1, 0, 2)
        ious = np.where(truth > 0, intersection / np.maximum(truth + prediction - intersection, 1), np.nan)
        results = {}
        for kind in KINDS:
            chosen = ious[:, (self.kinds == kind) | (kind == "all")]
            results[kind] = 100 * np.nansum(chosen, axis=1) / np.maximum((~np.isnan(chosen)).sum(axis=1), 1)
        return results


def resampling_weights(scenes: int, seed: int = 0) -> np.ndarray:
    """(RESAMPLES, scenes) how often each scene is drawn in each bootstrap resample."""
    return np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=RESAMPLES).astype(float)


def with_interval(value: float, resampled: np.ndarray) -> dict[str, float]:
    """A number with its 95 % bootstrap interval over scenes."""
    low, high = np.percentile(resampled, INTERVAL)
    return {"value": float(value), "low": float(low), "high": float(high)}


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
                mask_embedding=name,
                mask_pooling=form or None,
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
    out_vocabulary_only: bool = False,
) -> dict[str, IntersectionsAndUnions]:
    """Pixel counts of semantic maps.

    Args:
        segmenter, vocabulary, scenes, methods: see [`mask_accuracies`].
        ground_truth_masks: take the true masks rather than the generator's.
        out_vocabulary_only: with the generator's masks, leave its own class branch out but for void.
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
            class_logits = output.class_queries_logits
            if ground_truth_masks:
                mask_probabilities = scene.masks.float()
            else:
                mask_probabilities = F.interpolate(
                    output.masks_queries_logits, size=truth.shape, mode="bilinear", align_corners=False
                )[0].sigmoid()
                if out_vocabulary_only:
                    void = output.in_vocabulary_logits.softmax(dim=-1)[..., -1:]
                    of_classes = output.out_vocabulary_logits[..., :-1].softmax(dim=-1)
                    class_logits = log_with_void(of_classes * (1 - void), void)
            scores = torch.einsum("qc,qhw->chw", class_logits[0].softmax(dim=-1)[:, :-1], mask_probabilities)
            predicted = scores.argmax(dim=0)
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
