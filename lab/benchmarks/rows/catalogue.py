"""The rows of the comparison with another build, their inputs, and what was aimed at."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_maskadapter import Vocabulary
from hf_maskadapter.model.vocabulary import PROMPT_TEMPLATES
from lab.benchmarks.model_sizes import build_config
from lab.benchmarks.realistic_inputs import draw_class_scores, draw_masks, draw_outputs, read_segment_maps
from lab.benchmarks.rows.definitions import Case, Row, Scale
from lab.benchmarks.rows.mask_ap import draw_instances
from lab.benchmarks.speed_cases import largest_difference, share_of_different

_FEW_CLASSES = {1: 5.0, 2: 1.6, 5: 1.3, 10: 1.0}
_BFLOAT16 = 3e-2  # of the largest gradient, or value
_INT8 = 6e-2
_OTHER_LABELS = 2e-2  # share of pixels; random weights give scores that hardly differ


def _draw_adapter(scale: Scale, num_masks: int | None = None) -> dict[str, Any]:
    """Masks and random features."""
    clip = build_config(scale.model_size).clip_config
    torch.manual_seed(1)
    dense, projected = (
        torch.randn(1, channels, *scale.setting.grid) for channels in (clip.feature_dim, clip.projection_dim)
    )
    masks = draw_masks(read_segment_maps().maps[0], scale.setting.mask_size, num_masks or scale.num_masks)
    return {
        "model_size": scale.model_size,
        "dense": dense,
        "projected": projected,
        "masks": (masks.logits > 0)[None],
    }


def _draw_training(scale: Scale) -> dict[str, Any]:
    return _draw_adapter(scale, scale.num_training_masks)


def _draw_texts(scale: Scale) -> dict[str, Any]:
    """Evenly taken classes of ADE20K-847 with their synonyms, and all words that prompts for them have."""
    classes = [list(entry.synonyms) for entry in Vocabulary.from_label_set("ade20k_847").classes]
    classes = classes[:: max(len(classes) // scale.num_encoded_classes, 1)][: scale.num_encoded_classes]
    texts = [*PROMPT_TEMPLATES, *(name for synonyms in classes for name in synonyms)]
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})
    return {"model_size": scale.model_size, "classes": classes, "words": words}


def _draw_label_map(scale: Scale, num_classes: int) -> dict[str, Any]:
    outputs = draw_outputs(read_segment_maps().maps[0], scale.setting.padded_size, scale.num_masks, num_classes)
    names = ("class_queries_logits", "masks_queries_logits", "image_sizes", "padded_size")
    return {name: outputs[name] for name in names}


def _draw_pixels(scale: Scale) -> dict[str, Any]:
    torch.manual_seed(4)
    return {"model_size": scale.model_size, "pixel_values": torch.randn(1, 3, *scale.setting.padded_size)}


def _draw_picture(scale: Scale) -> dict[str, Any]:
    """A picture of blurred noise, drawn masks and scores for it, and random texts."""
    height, width = scale.setting.padded_size
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    masks = draw_masks(read_segment_maps().maps[0], scale.setting.mask_size, scale.num_masks)
    torch.manual_seed(3)
    texts = torch.randn(scale.num_classes, build_config(scale.model_size).clip_config.projection_dim)
    return {
        "model_size": scale.model_size,
        "picture": torch.from_numpy(np.array(picture)),
        "masks": masks.logits[None],
        "class_scores": draw_class_scores(masks.segments, scale.num_classes)[None],
        "text_embeds": torch.nn.functional.normalize(texts, dim=-1),
    }


CASES: dict[str, Case] = {
    "picture": Case(
        draw=_draw_picture,
        compute="pictures:label_map",
        opponent="pictures:dense_label_map",
        rows={
            "picture": Row("picture to label map", aim=1.35, tolerance=1e-4),
            "picture-bf16": Row("the same, bfloat16", {"precision": "bfloat16"}, aim=2.2, tolerance=_OTHER_LABELS),
            "picture-int8": Row("the same, int8", {"precision": "int8"}, aim=2.6, tolerance=_OTHER_LABELS),
        },
        difference=share_of_different,
    ),
    "tower": Case(
        draw=_draw_pixels,
        compute="pictures:image_tower",
        rows={
            "tower": Row("image tower", aim=1.5, tolerance=1e-4),
            "tower-bf16": Row("the same, bfloat16", {"precision": "bfloat16"}, aim=2.8, tolerance=_BFLOAT16),
            "tower-int8": Row("the same, int8", {"precision": "int8"}, aim=3.5, tolerance=_INT8),
        },
        difference=largest_difference,
    ),
    "adapter": Case(
        draw=_draw_adapter,
        compute="adapter:embeddings",
        opponent="adapter:dense_embeddings",
        rows={
            "adapter": Row("adapter, masks to mask embeddings", aim=1.25, tolerance=1e-4),
            "adapter-bf16": Row("the same, bfloat16", {"precision": "bfloat16"}, aim=2.2, tolerance=_BFLOAT16),
        },
        difference=largest_difference,
    ),
    "training": Case(
        draw=_draw_training,
        compute="adapter:training",
        opponent="adapter:dense_training",
        rows={
            "training": Row("training step of the adapter", aim=3),
            "training-bf16": Row("the same, bf16 autocast", {"autocast": True}, aim=5, tolerance=_BFLOAT16),
        },
        difference=largest_difference,
    ),
    "texts": Case(
        draw=_draw_texts,
        compute="texts:encode",
        rows={
            "texts": Row("encoding of a vocabulary, the first time", aim=2),
            "texts-cached": Row("the same, read from the cache", {"cached": True}, aim=50),
        },
        difference=largest_difference,
    ),
    **{
        f"label-map-{number}": Case(
            draw=partial(_draw_label_map, num_classes=number),
            compute="label_maps:label_map",
            opponent="label_maps:dense_label_map",
            beside={"Transformers' Mask2Former": "label_maps:mask2former_label_map"},
            right="opponent",
            rows={
                f"label-map-{number}": Row(f"label map of {number} class{'es' * (number > 1)}", aim=aim, tolerance=0.0)
            },
            difference=share_of_different,
        )
        for number, aim in _FEW_CLASSES.items()
    },
    "mask-ap": Case(
        draw=lambda scale: draw_instances(scale.num_pictures),
        compute="mask_ap:mask_ap",
        opponent="mask_ap:faster_coco_eval",
        beside={"faster-coco-eval, masks encoded by pycocotools": "mask_ap:faster_coco_eval_with_pycocotools"},
        right="opponent",
        rows={"mask-ap": Row("mask AP; in place of the published way faster-coco-eval", tolerance=1e-6)},
        difference=largest_difference,
    ),
}


def row_names() -> list[str]:
    """All rows, in the table's order."""
    return [name for case in CASES.values() for name in case.rows]


__all__ = ["CASES", "row_names"]
