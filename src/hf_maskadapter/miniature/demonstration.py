"""A drawn scene, its truth, and what mask pooling and the Mask-Adapter make of it, in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes import CLASS_NAMES, COLORS, SHAPES, STUFF, Scene, draw_scene, scene_masks, split_seed
from ..model.configuration_maskadapter import MaskEmbedding
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import open_vocabulary_logits
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..model.vocabulary import Vocabulary
from ..visualization import activation_heat_map, compare, side_by_side


@dataclass
class Demonstration:
    """What the demo shows.

    Args:
        picture: all panels.
        lines: for each visible segment its true class, and what pooling and the adapter call it, given its true mask.
    """

    picture: Image.Image
    lines: list[str]


def default_vocabulary(scene: Scene) -> Vocabulary:
    """What a scene shows, each thing once more with another colour and with another shape, and every background."""
    shown = list(dict.fromkeys(scene.things))
    names = [thing.name for thing in shown]
    for thing in shown:
        names.append(replace(thing, color=_next(thing.color, list(COLORS))).name)
        names.append(replace(thing, shape=_next(thing.shape, SHAPES)).name)
    return Vocabulary.from_list([[name] for name in dict.fromkeys([*names, *STUFF])])


def _next(value: str, values: Sequence[str]) -> str:
    return values[(list(values).index(value) + 1) % len(values)]


@torch.no_grad()
def demonstrate(
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    seed: int,
    vocabulary: Vocabulary | None = None,
    panel_size: int = 384,
    heat_maps: int = 4,
) -> Demonstration:
    """Draw a scene of the test split and segment it.

    Args:
        segmenter: a miniature, see [`hf_maskadapter.miniature.load_miniature`].
        processor: a miniature, see [`hf_maskadapter.miniature.load_miniature`].
        seed: of the scene.
        vocabulary: what to look for; default [`default_vocabulary`].
        panel_size: side of each panel in pixels.
        heat_maps: activation maps of so many things at most.

    Raises:
        ValueError: if a name of the vocabulary is unusable.
    """
    scene = draw_scene((*split_seed("test"), 1, seed))
    vocabulary = vocabulary or default_vocabulary(scene)
    picture = Image.fromarray(scene.picture)
    large = picture.resize((panel_size, panel_size), Image.Resampling.LANCZOS)
    encoded = segmenter.encode_vocabulary(vocabulary, processor)
    inputs = processor(images=[picture], return_tensors="pt")
    pixel_values = inputs["pixel_values"]
    feature_maps = segmenter.clip.get_feature_maps(pixel_values)
    assert segmenter.mask_generator is not None
    generated = segmenter.mask_generator(feature_maps, encoded, segmenter.get_void_embeds(), return_dict=True)

    results = {"Truth": torch.from_numpy(scene.semantic_map)}
    titles: dict[MaskEmbedding, str] = {"pooling": "Mask pooling", "adapter": "Mask-Adapter"}
    for method, title in titles.items():
        outputs = segmenter(
            pixel_values,
            encoded,
            pixel_mask=inputs["pixel_mask"],
            mask_embedding=method,
            feature_maps=feature_maps,
            generator_output=generated,
            return_dict=True,
        )
        label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=inputs["original_sizes"])[0]
        results[title] = label_map + len(CLASS_NAMES)  # the names of the truth come first
    names = [*CLASS_NAMES, *vocabulary.names]
    panels = {title: _enlarge(label_map, panel_size) for title, label_map in results.items()}
    comparison = compare(large, panels, names, title="Input")

    masks, class_ids = scene_masks(scene)
    called = {}
    for method in titles:
        embedded = segmenter.embed_masks(feature_maps[-1], masks[None].float(), False, mask_embedding=method)
        logits = open_vocabulary_logits(embedded.mask_embeddings, encoded, None, segmenter.clip.get_logit_scale())
        called[method] = [vocabulary.names[index] for index in logits[0].argmax(dim=-1).tolist()]
    lines = [
        f"{CLASS_NAMES[class_id]}: pooling says {pooling}, Mask-Adapter says {adapter}"
        for class_id, pooling, adapter in zip(class_ids, called["pooling"], called["adapter"], strict=True)
    ]
    order = sorted(range(len(masks)), key=lambda index: (CLASS_NAMES[class_ids[index]] in STUFF, -masks[index].sum()))
    chosen = order[:heat_maps]
    activation_maps = embedded.semantic_activation_maps  # the adapter's, which came last
    assert activation_maps is not None
    heats = [activation_heat_map(large, activation_maps[0, index]) for index in chosen]
    where = side_by_side(heats, [f"looks here for: {CLASS_NAMES[class_ids[index]]}" for index in chosen])
    canvas = Image.new("RGB", (max(comparison.width, where.width), comparison.height + where.height), "white")
    canvas.paste(comparison, (0, 0))
    canvas.paste(where, (0, comparison.height))
    return Demonstration(canvas, lines)


def _enlarge(label_map: Tensor, size: int) -> Tensor:
    enlarged = F.interpolate(label_map[None, None].float(), size=(size, size), mode="nearest")
    return enlarged[0, 0].long()
