"""Mean IoU as a streaming `evaluate.Metric`: a drop-in replacement of the Hub's `mean_iou` that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .functional.label_maps import SampleId
from .functional.mean_iou import ConfusionCounts, check_class_ids, check_options, count_confusions, mean_iou
from .streaming_metric import StreamingMetric, evaluate

_DESCRIPTION = """
IoU of a class is the number of pixels where prediction and annotation agree on it, divided by the number of pixels
where at least one of them says so, both summed over all images. Mean IoU averages it over the classes that occur.
"""

_INPUTS = """
Args:
    predictions (list of `ndarray`, `Tensor` or `PIL.Image`): Predicted class ids, each (height, width).
    references (the same): Annotated class ids, each of its prediction's size.
    num_labels (`int`): Number of classes.
    ignore_index (`int`): Annotated value that is not evaluated.
    nan_to_num (`float`, *optional*): What replaces NaN in the result.
    label_map (`dict`, *optional*): Annotated value -> class id.
    reduce_labels (`bool`, defaults to `False`): Whether annotated class ids start at 1 and 0 is background.

Returns:
    `dict` of mean_iou, mean_accuracy, overall_accuracy (numbers), per_category_iou and per_category_accuracy (arrays).

Example:

    >>> metric = MeanIoU(num_labels=3, ignore_index=255)
    >>> metric.compute(predictions=[[[0, 1], [2, 2]]], references=[[[0, 1], [1, 255]]])["per_category_iou"]
    array([1. , 0.5, 0. ])
"""

_CITATION = """
@inproceedings{long2015fully,
  title={Fully convolutional networks for semantic segmentation},
  author={Long, Jonathan and Shelhamer, Evan and Darrell, Trevor},
  booktitle={CVPR},
  year={2015}
}
"""


class MeanIoU(StreamingMetric):
    """Mean IoU with the arguments, result keys and numbers of the Hub's `mean_iou`, counted as samples come in.

    Differences from the Hub's metric: no map is kept or written to disk; tensors are counted on their device; sizes
    that differ and class ids out of range are errors (``strict=False`` takes the latter as the Hub's metric does); and
    ``reduce_labels`` is right above 254 labels, where the Hub's metric takes class 254 for background and drops class
    255 (`hf_maskadapter.evaluation.functional.mean_iou.map_reference_values` says how each value is read).

    Args:
        num_labels: Number of classes. This and what follows can be given to `compute` instead.
        ignore_index: Annotated value that is not evaluated. Predictions of this value are misses, not ignored.
        nan_to_num: What replaces NaN (classes that do not occur) in the result.
        label_map: Annotated value → class id, applied to raw values.
        reduce_labels: Whether annotated class ids start at 1 and 0 is background.
        strict: Whether class ids out of range are errors.
    """

    def __init__(
        self,
        num_labels: int | None = None,
        ignore_index: int | None = None,
        nan_to_num: float | None = None,
        label_map: Mapping[int, int] | None = None,
        reduce_labels: bool = False,
        strict: bool = True,
        **kwargs: Any,
    ):
        options = {
            "num_labels": num_labels,
            "ignore_index": ignore_index,
            "nan_to_num": nan_to_num,
            "label_map": label_map,
            "reduce_labels": reduce_labels,
            "strict": strict,
        }
        self._complete = num_labels is not None and ignore_index is not None
        if self._complete:
            check_options(num_labels, ignore_index, reduce_labels)
        super().__init__(options, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        import datasets

        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    @staticmethod
    def _new_state() -> ConfusionCounts:
        return ConfusionCounts()

    def _count(self, prediction: Any, reference: Any, sample_id: SampleId) -> ConfusionCounts:
        counts = count_confusions(prediction, reference, sample_id)
        if self._complete and self._options["strict"]:
            names = ("num_labels", "ignore_index", "label_map", "reduce_labels")
            check_class_ids(counts, **{name: self._options[name] for name in names})
        return counts

    def _result(self, state: Any, **options: Any) -> dict[str, Any]:
        return mean_iou(state, **options)
