"""The rows of the comparison with another build, their inputs, and what was aimed at."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from lab.benchmarks.model_sizes import build_config
from lab.benchmarks.realistic_inputs import draw_masks, draw_outputs, read_segment_maps
from lab.benchmarks.rows.definitions import Case, Row, Scale
from lab.benchmarks.rows.mask_ap import draw_instances
from lab.benchmarks.speed_cases import largest_difference, share_of_different

_FEW_CLASSES = {1: 5.0, 2: 1.6, 5: 1.3, 10: 1.0}
_BFLOAT16 = 3e-2  # of the largest gradient


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


def _draw_label_map(scale: Scale, num_classes: int) -> dict[str, Any]:
    outputs = draw_outputs(read_segment_maps().maps[0], scale.setting.padded_size, scale.num_masks, num_classes)
    names = ("class_queries_logits", "masks_queries_logits", "image_sizes", "padded_size")
    return {name: outputs[name] for name in names}


CASES: dict[str, Case] = {
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
