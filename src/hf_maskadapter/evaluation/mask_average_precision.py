"""COCO mask average precision as a streaming `evaluate.Metric`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .functional.label_maps import SampleId
from .functional.mask_average_precision import DetectionRecords, mask_average_precision, match_detections
from .functional.panoptic_quality import check_categories
from .streaming_metric import StreamingMetric, evaluate

_DESCRIPTION = """
COCO's mask average precision: the area under the precision-recall curve of instance masks, averaged over the IoU
thresholds 0.50, 0.55, ..., 0.95 and over categories. Evaluated by pycocotools.
"""

_INPUTS = """
Args:
    predictions (list of `dict`): masks, scores and labels of the instances, or segmentation and segments_info.
    references (list of `dict`): masks and labels, optionally iscrowd and area; or segmentation and segments_info.
    categories (list of `int`): Ids of the categories evaluated.

Returns:
    `dict` of ap, ap50, ap75, ap_small, ap_medium, ap_large, ar_1, ar_10, ar_100, ar_small, ar_medium, ar_large (numbers
    from 0 to 1, NaN where nothing is annotated) and per_category_ap (array in the order of `categories`).

Example:

    >>> metric = MaskAveragePrecision(categories=[0])
    >>> masks = [[[1, 1], [0, 0]]]
    >>> metric.compute(
    ...     predictions=[{"masks": masks, "scores": [0.9], "labels": [0]}], references=[{"masks": masks, "labels": [0]}]
    ... )["ap50"]
    1.0
"""

_CITATION = """
@inproceedings{lin2014microsoft,
  title={Microsoft {COCO}: Common objects in context},
  author={Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and Ramanan, Deva and
    Doll{\\'a}r, Piotr and Zitnick, C Lawrence},
  booktitle={ECCV},
  year={2014}
}
"""


class MaskAveragePrecision(StreamingMetric):
    """COCO mask average precision with pycocotools' numbers, matched as samples come in.

    Masks are not kept, only scores and matches (under a kilobyte per image and category). Where scores tie, precision
    depends on the order of images; it is that of ``sample_ids``, so give them (the data set's ids or indices) when
    several processes share the work.

    Args:
        categories: Ids of the categories evaluated; can be given to `compute` instead.
    """

    def __init__(self, categories: Sequence[int] | None = None, **kwargs: Any):
        super().__init__({"categories": categories}, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        import datasets

        reference = {"masks": [datasets.Image()], "labels": [datasets.Value("int64")]}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": reference | {"scores": [datasets.Value("float64")]}, "references": reference}
            ),
            reference_urls=["https://cocodataset.org/#detection-eval"],
        )

    @staticmethod
    def _new_state() -> DetectionRecords:
        return DetectionRecords()

    def _count(self, prediction: Any, reference: Any, sample_id: SampleId) -> DetectionRecords:
        records = match_detections(prediction, reference, sample_id)
        if self._options["categories"] is not None:
            check_categories(records, self._options["categories"])
        return records

    def _result(self, state: Any, **options: Any) -> dict[str, Any]:
        if options["categories"] is None:
            raise TypeError("MaskAveragePrecision needs `categories`: give it to `compute` or when the metric is made.")
        return mask_average_precision(state, **options)
