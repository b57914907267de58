"""Panoptic quality as a streaming `evaluate.Metric`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .functional.label_maps import SampleId
from .functional.panoptic_quality import PanopticCounts, check_categories, match_panoptic, panoptic_quality
from .streaming_metric import StreamingMetric, evaluate

_DESCRIPTION = """
Panoptic quality (PQ) of a category is the sum of IoU over matched segments (IoU > 0.5) divided by the matches plus half
the unmatched segments of prediction and annotation; it is segmentation quality (SQ) times recognition quality (RQ).
"""

_INPUTS = """
Args:
    predictions (list of `dict`): segmentation (map of segment ids) and segments_info (id, label_id or category_id).
    references (list of `dict`): The same, with optional iscrowd in segments_info; id 0 is void.
    categories (`dict`): Category id -> whether it is a thing.

Returns:
    `dict` of pq, sq, rq, each also with _things and _stuff (numbers from 0 to 1), and per_category_pq, per_category_sq,
    per_category_rq (arrays in the order of `categories`, NaN where a category does not occur).

Example:

    >>> metric = PanopticQuality(categories={0: True, 1: False})
    >>> segments = [{"id": 1, "category_id": 0}, {"id": 2, "category_id": 1}]
    >>> prediction = {"segmentation": [[1, 2], [2, 2]], "segments_info": segments}
    >>> reference = {"segmentation": [[1, 2], [2, 0]], "segments_info": segments}
    >>> metric.compute(predictions=[prediction], references=[reference])["pq"]
    1.0
"""

_CITATION = """
@inproceedings{kirillov2019panoptic,
  title={Panoptic segmentation},
  author={Kirillov, Alexander and He, Kaiming and Girshick, Ross and Rother, Carsten and Doll{\\'a}r, Piotr},
  booktitle={CVPR},
  year={2019}
}
"""


class PanopticQuality(StreamingMetric):
    """Panoptic quality with panopticapi's numbers, matched as samples come in.

    Args:
        categories: Category id → whether it is a thing (True) or stuff (False); can be given to `compute` instead. For
            a COCO-style annotation file: ``{c["id"]: bool(c["isthing"]) for c in annotation["categories"]}``; for a
            vocabulary: ``{index: c.is_thing for index, c in enumerate(vocabulary.classes)}``.
    """

    def __init__(self, categories: Mapping[int, bool | None] | None = None, **kwargs: Any):
        super().__init__({"categories": categories}, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        import datasets

        segment = {"id": datasets.Value("int64"), "category_id": datasets.Value("int64")}
        picture = {"segmentation": datasets.Image(), "segments_info": [segment]}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": picture,
                    "references": {
                        "segmentation": datasets.Image(),
                        "segments_info": [segment | {"iscrowd": datasets.Value("bool")}],
                    },
                }
            ),
            reference_urls=["https://github.com/cocodataset/panopticapi"],
        )

    @staticmethod
    def _new_state() -> PanopticCounts:
        return PanopticCounts()

    def _count(self, prediction: Any, reference: Any, sample_id: SampleId) -> PanopticCounts:
        counts = match_panoptic(prediction, reference, sample_id)
        if self._options["categories"] is not None:
            check_categories(counts, self._options["categories"])
        return counts

    def _result(self, state: Any, **options: Any) -> dict[str, Any]:
        if options["categories"] is None:
            raise TypeError("PanopticQuality needs `categories`: give it to `compute` or when the metric is made.")
        return panoptic_quality(state, **options)
