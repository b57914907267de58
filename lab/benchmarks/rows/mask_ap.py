"""Instance masks to COCO's twelve numbers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Inputs = Mapping[str, Any]

STATISTICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


def mask_ap(inputs: Inputs) -> Callable[[], Tensor]:
    """This package's metric; -1 where nothing is annotated."""
    from hf_maskadapter.evaluation import MaskAveragePrecision

    categories = list(range(inputs["num_categories"]))
    predictions, references = _as_arrays(inputs["predictions"]), _as_arrays(inputs["references"])

    def compute() -> Tensor:
        metric = MaskAveragePrecision(categories=categories)
        found = metric.compute(predictions=predictions, references=references)
        return torch.tensor([found[name] for name in STATISTICS], dtype=torch.double).nan_to_num(-1.0)

    return compute


def faster_coco_eval(inputs: Inputs, encoder: str = "faster_coco_eval") -> Callable[[], Tensor]:
    """faster-coco-eval, with masks encoded by itself or by pycocotools, whose encoder is faster."""
    from faster_coco_eval import COCO, COCOeval_faster

    if encoder == "pycocotools":
        from pycocotools.mask import encode
    else:
        from faster_coco_eval.core.mask import encode
    predictions, references = _as_arrays(inputs["predictions"]), _as_arrays(inputs["references"])

    def annotations(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number, picture in enumerate(pictures):
            columns = {"category_id": picture["labels"]}
            columns |= {
                name: picture[key] for name, key in (("score", "scores"), ("iscrowd", "iscrowd")) if key in picture
            }
            for place, mask in enumerate(picture["masks"]):
                rle = encode(np.asfortranarray(mask, dtype=np.uint8))
                one = {"id": len(found) + 1, "image_id": number, "segmentation": rle, "area": float(mask.sum())}
                found.append(one | {name: column[place] for name, column in columns.items()})
        return found

    def compute() -> Tensor:
        with contextlib.redirect_stdout(io.StringIO()):
            right = COCO(
                {
                    "info": {},
                    "images": [
                        {"id": number, "height": picture["masks"].shape[1], "width": picture["masks"].shape[2]}
                        for number, picture in enumerate(references)
                    ],
                    "categories": [{"id": number, "name": str(number)} for number in range(inputs["num_categories"])],
                    "annotations": annotations(references),
                }
            )
            found = right.loadRes(annotations(predictions))
            evaluator = COCOeval_faster(right, found, "segm", print_function=lambda *_, **__: None)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return torch.tensor(np.asarray(evaluator.stats[: len(STATISTICS)], np.float64))

    return compute


def faster_coco_eval_with_pycocotools(inputs: Inputs) -> Callable[[], Tensor]:
    """faster-coco-eval with masks that pycocotools encoded."""
    return faster_coco_eval(inputs, "pycocotools")


def draw_instances(num_pictures: int, size: tuple[int, int] = (240, 320), num_categories: int = 20) -> dict[str, Any]:
    """Pictures of a dozen annotated boxes and forty predicted ones, most near an annotated one.

    Args:
        num_pictures: their number.
        size: height and width.
        num_categories: categories.
    """
    draw = np.random.default_rng(0)
    height, width = size
    predictions, references = [], []
    for _ in range(num_pictures):
        masks, there = np.zeros((12, height, width), bool), draw.integers(0, num_categories, 6)
        for mask in masks:
            tall, wide = draw.integers(8, 120, 2)
            top, left = draw.integers(0, height - tall), draw.integers(0, width - wide)
            mask[top : top + tall, left : left + wide] = True
        labels, chosen = draw.choice(there, 12), draw.integers(0, 12, 40)
        crowd = (draw.random(12) < 0.05).astype(int)
        references.append({"masks": _tensor(masks), "labels": labels.tolist(), "iscrowd": crowd.tolist()})
        found = np.stack([np.roll(masks[number], draw.integers(-8, 9, 2), (0, 1)) for number in chosen])
        guesses = np.where(draw.random(40) < 0.3, draw.integers(0, num_categories, 40), labels[chosen])
        scores = np.round(draw.random(40), 3)
        predictions.append({"masks": _tensor(found), "labels": guesses.tolist(), "scores": scores.tolist()})
    return {"predictions": predictions, "references": references, "num_categories": num_categories}


def _tensor(masks: np.ndarray) -> Tensor:
    return torch.from_numpy(masks)


def _as_arrays(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [picture | {"masks": picture["masks"].numpy()} for picture in pictures]
