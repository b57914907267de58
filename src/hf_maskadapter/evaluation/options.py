"""How a model is measured, as a dataclass whose fields are the options of `maskadapter evaluate`, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..data.options import option

Task = Literal["semantic", "panoptic", "instance"]
MaskSource = Literal["generator", "annotation"]
LabelMatching = Literal["names", "order"]


@dataclass(kw_only=True)
class PredictorOptions:
    """What [`hf_maskadapter.evaluation.load_predictor`] makes of a model: what is measured, and how it predicts.

    `methods` are [`hf_maskadapter.evaluation.Method`]s, or texts that `Method.parse` reads.
    """

    tasks: tuple[Task, ...] = option("what to measure (default: the benchmark's, or semantic)", (), flags=("--task",))
    methods: tuple[Any, ...] = option(
        "ways to classify masks, side by side: adapter, crop, pooling, pooling-hard, pooling-area, pooling-any "
        "(default: the model's own)",
        (),
        flags=("--mask-embedding",),
        metavar="METHOD",
        parse=str,
    )
    masks: MaskSource = option(
        "whose masks are classified; annotation: the annotated segments (upper bound)", "generator"
    )
    shortest_edge: int | None = option("the input's shorter side in pixels, instead of the model's", None)
    longest_edge: int | None = option("the input's longer side at most, instead of the model's", None)
    object_threshold: float | None = option("of panoptic results, instead of the model's", None)
    overlap_threshold: float | None = option("of panoptic results, instead of the model's", None)
    resize_scores: bool | None = option(
        "compute semantic scores at the input's size and resize them, instead of the masks (default: as published for "
        "the benchmark)",
        None,
    )
    text_transfer_panoptic: bool | None = option(
        "formula of a MAFT+ model's text transfer, instead of the model's; the published numbers of MAFT+-L with "
        "Mask-Adapter were measured with it on A-150 and without it elsewhere",
        None,
    )
    label_matching: LabelMatching = option("how the labels of a model with fixed labels become classes", "names")
    dtype: Literal["float32", "bfloat16", "float16"] = option("type of the weights", "float32")
    revision: str | None = option("version of a model on the Hub", None, flags=("--model-revision",), metavar="NAME")


__all__ = ["LabelMatching", "MaskSource", "PredictorOptions", "Task"]
