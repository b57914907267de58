"""A drawn scene, its truth, and what mask pooling and the Mask-Adapter make of it: measured, then in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes import CLASS_NAMES, Scene, draw_scene, scene_masks, scene_vocabulary, split_seed
from ..model.configuration_maskadapter import MaskEmbedding
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..model.vocabulary import Vocabulary
from .demonstration_picture import METHOD_TITLES, draw_comparison
from .scene_comparison import SceneComparison


@dataclass
class Demonstration:
    """What the demo shows.

    Args:
        picture: all panels.
        lines: for each visible segment its true class, and what pooling and the adapter call it, given its true mask.
        comparison: what both were drawn and written from.
    """

    picture: Image.Image
    lines: list[str]
    comparison: SceneComparison

    def scores(self) -> str:
        """Mean IoU of each method's result; empty if the labels do not hold all that the scene shows."""
        if not self.comparison.has_truth:
            return ""
        parts = (f"{title} {self.comparison.mean_iou(method):.1f} %" for method, title in METHOD_TITLES.items())
        return f"mIoU {', '.join(parts)}"


def demonstration_scene(seed: int) -> Scene:
    """A scene of the test split, as the demo draws it."""
    return draw_scene((*split_seed("test"), 1, seed))


@torch.no_grad()
def compare_methods(
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    scene: Scene,
    names: Sequence[str],
    vocabulary: EncodedVocabulary,
) -> SceneComparison:
    """Segment a scene with pooling and with the adapter: the same features, the same generated masks.

    Args:
        segmenter: a miniature, see [`hf_maskadapter.miniature.load_miniature`].
        processor: its processor.
        scene: what is to be seen.
        names: of the vocabulary's classes.
        vocabulary: the same, encoded.
    """
    inputs = processor(images=[Image.fromarray(scene.picture)], return_tensors="pt")
    pixel_values = inputs["pixel_values"]
    feature_maps = segmenter.clip.get_feature_maps(pixel_values)
    assert segmenter.mask_generator is not None
    generated = segmenter.mask_generator(feature_maps, vocabulary, segmenter.get_void_embeds(), return_dict=True)
    masks, class_ids = scene_masks(scene)
    label_maps: dict[MaskEmbedding, np.ndarray] = {}
    called: dict[MaskEmbedding, list[str]] = {}
    for method in METHOD_TITLES:
        outputs = segmenter(
            pixel_values,
            vocabulary,
            pixel_mask=inputs["pixel_mask"],
            mask_embedding=method,
            feature_maps=feature_maps,
            generator_output=generated,
            output_semantic_activation_maps=method == "adapter",
            return_dict=True,
        )
        label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=inputs["original_sizes"])[0]
        label_maps[method] = label_map.numpy()
        embedded = segmenter.embed_masks(feature_maps[-1], masks[None].float(), False, mask_embedding=method)
        logits = open_vocabulary_logits(embedded.mask_embeddings, vocabulary, None, segmenter.clip.get_logit_scale())
        called[method] = [names[index] for index in logits[0].argmax(dim=-1).tolist()]
    proposals, chosen = _best_proposals(outputs.masks_queries_logits[0], masks)
    return SceneComparison(
        picture=scene.picture,
        masks=masks.numpy(),
        true_names=[CLASS_NAMES[class_id] for class_id in class_ids],
        names=list(names),
        label_maps=label_maps,
        called=called,
        proposals=proposals.numpy(),
        activation_maps=outputs.semantic_activation_maps[0, chosen].numpy(),  # the adapter's, which came last
    )


def _best_proposals(mask_logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """For each true mask the generated one with the greatest IoU, `(segments, size, size)` bool, and its number."""
    size = tuple(masks.shape[-2:])
    generated = F.interpolate(mask_logits[None], size=size, mode="bilinear", align_corners=False)[0] > 0
    both = torch.einsum("shw,qhw->sq", masks.float(), generated.float())
    either = masks.sum(dim=(1, 2))[:, None] + generated.sum(dim=(1, 2))[None] - both
    chosen = (both / either).argmax(dim=1)
    return generated[chosen], chosen


def demonstrate(
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    seed: int,
    vocabulary: Vocabulary | None = None,
    panel_size: int = 576,
    heat_maps: int = 3,
) -> Demonstration:
    """Draw a scene of the test split and segment it.

    Args:
        segmenter: a miniature, see [`hf_maskadapter.miniature.load_miniature`].
        processor: its processor.
        seed: of the scene.
        vocabulary: what to look for; by default all that the drawn world has, whatever the scene shows.
        panel_size: side of each panel in pixels.
        heat_maps: activation maps of so many segments at most.

    Raises:
        ValueError: if a name of the vocabulary is unusable.
    """
    scene = demonstration_scene(seed)
    vocabulary = vocabulary or scene_vocabulary()
    encoded = segmenter.encode_vocabulary(vocabulary, processor)
    comparison = compare_methods(segmenter, processor, scene, vocabulary.names, encoded)
    picture = draw_comparison(comparison, panel_size, heat_maps)
    lines = [
        f"{name}: pooling says {pooling}, Mask-Adapter says {adapter}"
        for name, pooling, adapter in zip(
            comparison.true_names, comparison.called["pooling"], comparison.called["adapter"], strict=True
        )
    ]
    return Demonstration(picture, lines, comparison)


__all__ = ["Demonstration", "compare_methods", "demonstrate", "demonstration_scene"]
