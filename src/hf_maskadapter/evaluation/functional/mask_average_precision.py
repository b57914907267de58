"""Average precision of instance masks (COCO's definition), matched image by image, with pycocotools' very numbers.

Matching a picture's masks needs only that picture, so it is done when the picture is counted; what is kept of a
prediction is its score and two bits per IoU threshold and area range, not its mask.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...model.masks import as_array, binary_mask, checked_run_lengths, is_number, is_polygon, whole_number
from ...model.segments import Segments
from .coco_matching import best_of_each, match_category, precision_at_recalls
from .label_maps import SampleId, as_segment_map, check_listed, segment_entries, to_numpy
from .panoptic_quality import check_categories

_RESULT_KEYS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar_1",
    "ar_10",
    "ar_100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


_NO_POLYGON = (
    "it is a polygon, whose picture's size is not known here; give a mask, for example "
    "hf_maskadapter.model.masks.polygon_mask(points, size, rule='coco')."
)


@dataclass
class CategoryDetections:
    """The matched detections of one category in one image, best score first, at most 100.

    Attributes:
        sample_id: The image; images are ranked by it where scores tie, as pycocotools ranks them.
        scores: ``(D,)`` float64.
        matched: ``(areas, D)`` int64; bit t tells whether the detection matched at the t-th IoU threshold.
        ignored: ``(areas, D)`` int64; bit t tells whether it is left out there (crowd, area out of range).
        num_annotated: ``(areas,)`` int64 annotated instances that count.
    """

    sample_id: SampleId
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    num_annotated: np.ndarray


@dataclass
class DetectionRecords:
    """Matched detections by category, over any number of images.

    Attributes:
        categories: Category id → one entry for each image in which it is annotated or predicted.
        reference_samples: Category id → first sample whose annotation holds it, for messages.
        prediction_samples: Category id → first sample whose prediction holds it.
        num_samples: Images counted.
    """

    categories: dict[int, list[CategoryDetections]] = field(default_factory=dict)
    reference_samples: dict[int, SampleId] = field(default_factory=dict)
    prediction_samples: dict[int, SampleId] = field(default_factory=dict)
    num_samples: int = 0

    def add(self, other: DetectionRecords) -> None:
        """Adds the records of ``other`` in place."""
        for category, records in other.categories.items():
            self.categories.setdefault(category, []).extend(records)
        self.reference_samples = other.reference_samples | self.reference_samples
        self.prediction_samples = other.prediction_samples | self.prediction_samples
        self.num_samples += other.num_samples

    def state_dict(self) -> dict[str, Any]:
        """The records as plain lists of numbers and strings (JSON, `torch.save`)."""
        return {
            "records": [
                [category, r.sample_id, *(getattr(r, name).tolist() for name in _ARRAYS)]
                for category, records in sorted(self.categories.items())
                for r in records
            ],
            "reference_samples": [[category, sample] for category, sample in self.reference_samples.items()],
            "prediction_samples": [[category, sample] for category, sample in self.prediction_samples.items()],
            "num_samples": self.num_samples,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> DetectionRecords:
        """Records from the result of `state_dict`."""
        categories: dict[int, list[CategoryDetections]] = {}
        for category, sample_id, scores, *integers in state["records"]:
            record = CategoryDetections(
                sample_id, np.array(scores, np.float64), *(np.array(value, np.int64) for value in integers)
            )
            categories.setdefault(int(category), []).append(record)
        return cls(
            categories=categories,
            reference_samples={int(category): sample for category, sample in state["reference_samples"]},
            prediction_samples={int(category): sample for category, sample in state["prediction_samples"]},
            num_samples=int(state["num_samples"]),
        )


_ARRAYS = ("scores", "matched", "ignored", "num_annotated")


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools import mask
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError(
            "Mask average precision is evaluated by pycocotools, which is not installed: pip install "
            "'hf-maskadapter[eval]'."
        ) from error
    return mask, COCOeval


def match_detections(prediction: Any, reference: Any, sample_id: SampleId = 0) -> DetectionRecords:
    """Matches the instance masks of one image.

    Args:
        prediction: [`Segments`]; or a dict, either of ``masks``, ``scores`` and ``labels`` (one of each per
            instance) or of
            ``segmentation`` and ``segments_info`` as `post_process_instance_segmentation` gives them
            (``[{"id", "label_id" or "category_id", "score"}, ...]``). Masks are a (instances, height, width) array or
            tensor, a list of (height, width) maps, or COCO run-length encodings: booleans, 0 and 1 or 255, or
            probabilities, of which more than 0.5 is inside; logits are refused. A (height, width) ``segmentation`` is a
            map of the ids in ``segments_info``, of which those that others cover wholly are left out; any other has one
            mask for each entry. The area of a prediction is always its mask's.
        reference: The same without scores. Optional: ``iscrowd`` and ``area`` (else the mask's own) for each
            instance, as lists beside ``masks`` or keys of ``segments_info``. Segments with ``"isthing": False`` are
            skipped.
        sample_id: What messages call the sample, and how it ranks where scores tie.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: A missing part, numbers or sizes that differ, values that are no masks', run lengths that do not
            fill their size, scores that are not finite; the message names sample and mask.
    """
    mask_api, coco_eval = _pycocotools()
    detections = _parse(prediction, "prediction", sample_id, mask_api)
    annotations = _parse(reference, "reference", sample_id, mask_api)
    predicted_sizes = {tuple(item["segmentation"]["size"]) for item in detections}
    annotated_sizes = {tuple(item["segmentation"]["size"]) for item in annotations}
    if len(predicted_sizes | annotated_sizes) > 1:
        raise ValueError(
            f"The masks of sample {sample_id!r} differ in size (height, width): predictions {sorted(predicted_sizes)}, "
            f"annotations {sorted(annotated_sizes)}. Bring the predictions to the annotation's size, e.g. by "
            "`target_sizes` of the post-processing functions."
        )
    params = coco_eval(iouType="segm").params
    weights = 1 << np.arange(len(params.iouThrs), dtype=np.int64)
    result = DetectionRecords(num_samples=1)
    found_of, there_of = _by_category(detections), _by_category(annotations)
    area_ranges = np.array(params.areaRng, np.float64)
    for category in sorted(found_of.keys() | there_of.keys()):
        found, there = found_of.get(category, []), there_of.get(category, [])
        order = np.argsort([-item["score"] for item in found], kind="mergesort")[: params.maxDets[-1]]
        found = [found[place] for place in order]
        is_crowd = [item["iscrowd"] for item in there]
        ious = mask_api.iou(
            [item["segmentation"] for item in found], [item["segmentation"] for item in there], is_crowd
        )
        matches = match_category(
            np.asarray(ious, np.float64).reshape(len(found), len(there)),
            np.array([item["area"] for item in found], np.float64),
            np.array([item["area"] for item in there], np.float64),
            np.array(is_crowd, bool),
            params.iouThrs,
            area_ranges,
        )
        record = CategoryDetections(
            sample_id=sample_id,
            scores=np.array([item["score"] for item in found], np.float64),
            matched=np.einsum("t,atd->ad", weights, matches.matched),
            ignored=np.einsum("t,atd->ad", weights, matches.ignored),
            num_annotated=matches.num_annotated,
        )
        result.categories[category] = [record]
    result.reference_samples = {item["category_id"]: sample_id for item in annotations}
    result.prediction_samples = {item["category_id"]: sample_id for item in detections}
    return result


def _by_category(items: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for item in items:
        found.setdefault(item["category_id"], []).append(item)
    return found


def merge_detections(parts: Iterable[DetectionRecords]) -> DetectionRecords:
    """The union of several records."""
    total = DetectionRecords()
    for part in parts:
        total.add(part)
    return total


def mask_average_precision(records: DetectionRecords, categories: Iterable[int]) -> dict[str, Any]:
    """COCO's average precision and recall of what was counted.

    Args:
        records: From `match_detections`, merged over images.
        categories: Ids of the categories evaluated.

    Returns:
        ``ap`` (mean over IoU 0.50, 0.55, ..., 0.95), ``ap50``, ``ap75``, ``ap_small`` (area up to 32² pixels),
        ``ap_medium`` (up to 96²), ``ap_large``, ``ar_1``, ``ar_10``, ``ar_100`` (with at most so many predictions per
        image and category), ``ar_small``, ``ar_medium``, ``ar_large``, as fractions, and ``per_category_ap``, an array
        in the order of ``categories``. Where nothing is annotated the value is NaN (−1 in pycocotools).

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: A counted category is not among ``categories``.
    """
    _, coco_eval = _pycocotools()
    categories = list(categories)
    check_categories(records, categories)
    evaluator = coco_eval(iouType="segm")
    params = evaluator.params
    shape = len(params.iouThrs), len(params.recThrs), len(categories), len(params.areaRng), len(params.maxDets)
    precision, recall = -np.ones(shape), -np.ones((shape[0], *shape[2:]))
    for place, category in enumerate(categories):
        records_of_images = sorted(records.categories.get(category, []), key=_rank)
        for area in range(len(params.areaRng)):
            curves = _curves(records_of_images, area, params)
            if curves is not None:
                precision[:, :, place, area, -1], recall[:, place, area] = curves
    evaluator.eval = {"precision": precision, "recall": recall}
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    result: dict[str, Any] = {
        key: float(value) if value > -1 else float("nan")
        for key, value in zip(_RESULT_KEYS, evaluator.stats, strict=True)
    }
    per_category = np.full(len(categories), np.nan)
    for index in range(len(categories)):
        values = precision[:, :, index, 0, -1]  # −1 where nothing is annotated
        if (values > -1).any():
            per_category[index] = values[values > -1].mean()
    return result | {"per_category_ap": per_category}


def _rank(record: CategoryDetections) -> tuple[bool, Any]:
    return isinstance(record.sample_id, str), record.sample_id


def _curves(images: list[CategoryDetections], area: int, params: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """A category's precision with the most detections, `(thresholds, recalls)`, and recall with each limit.

    `None` where nothing is annotated. Recall is `(thresholds, limits)`.
    """
    num_annotated = sum(int(image.num_annotated[area]) for image in images)
    if num_annotated == 0:
        return None
    scores = np.concatenate([image.scores for image in images])
    bits = np.arange(len(params.iouThrs))[:, None]
    matched, ignored = (
        (np.concatenate([getattr(image, name)[area] for image in images]) >> bits & 1).astype(bool)
        for name in ("matched", "ignored")
    )
    precision = precision_at_recalls(scores, matched, ignored, num_annotated, params.recThrs)
    is_right = matched & ~ignored
    limits = [best_of_each([image.scores for image in images], most) for most in params.maxDets]
    recalls = [np.count_nonzero(is_right[:, kept], axis=1) / num_annotated for kept in limits]
    return precision, np.stack(recalls, axis=1)


def _parse(value: Any, role: str, sample_id: SampleId, mask_api: Any) -> list[dict[str, Any]]:
    """The instances as COCO annotations with compressed run-length encodings."""
    name = f"The {role} of sample {sample_id!r}"
    if value is None:
        raise ValueError(f"{name} is missing (None).")
    if isinstance(value, Segments):
        value = _from_result(value, role, sample_id)
    elif isinstance(value, Mapping) and {"segmentation", "segments_info"} <= value.keys():
        value = _from_segments(value, role, sample_id)
    required = ("masks", "labels") if role == "reference" else ("masks", "labels", "scores")
    if not isinstance(value, Mapping) or any(value.get(key) is None for key in required):
        keys = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(
            f"{name} must be a dict with {', '.join(required)}, or with segmentation and segments_info; got {keys}."
        )
    given = value["masks"]
    if getattr(given, "ndim", None) == 2 and len(given):
        raise ValueError(
            f"{name} has masks of shape {tuple(given.shape)}; expected (instances, height, width). A map of segments "
            "is given as segmentation beside its segments_info."
        )
    if isinstance(given, Mapping | str | bytes) or not hasattr(given, "__len__"):
        raise ValueError(f"{name} must hold its masks in a list or an array, got {type(given).__name__}.")
    masks = [_encode(mask, mask_api, name, number) for number, mask in enumerate(given)]
    names = ("labels", "scores") if role == "prediction" else ("labels", "iscrowd", "area")
    columns = {key: _to_list(value[key]) for key in names if value.get(key) is not None}
    for key, column in columns.items():
        if len(column) != len(masks):
            raise ValueError(f"{name} has {len(masks)} masks but {len(column)} {key}.")
    for number, score in enumerate(columns.get("scores", ())):
        score = score.item() if hasattr(score, "item") and np.ndim(score) == 0 else score
        if not isinstance(score, (int, float)) or not math.isfinite(score):
            raise ValueError(f"{name}, mask {number}, has the score {score}; scores are finite numbers.")
    areas = columns.get("area", [None] * len(masks))
    return [
        {
            "category_id": _whole(columns["labels"][index], f"{name}, mask {index}"),
            "segmentation": mask,
            "area": _area(areas[index], mask, mask_api, f"{name}, mask {index}"),
            "iscrowd": int(columns["iscrowd"][index] or 0) if "iscrowd" in columns else 0,
            "score": float(columns["scores"][index]) if "scores" in columns else 0.0,
        }
        for index, mask in enumerate(masks)
    ]


def _whole(label: Any, name: str) -> int:
    try:
        return whole_number(label)
    except ValueError:
        raise ValueError(f"{name}, has the label {label}; category ids are whole numbers.") from None


def _area(given: Any, mask: dict[str, Any], mask_api: Any, name: str) -> float:
    """The area that an annotation tells, else the mask's."""
    if given is None:
        return float(mask_api.area(mask))
    try:
        area = float(given)
    except (TypeError, ValueError):
        area = math.nan
    if not 0 <= area < math.inf:
        raise ValueError(f"{name}, has the area {given}; areas are numbers of pixels.")
    return area


def _from_result(value: Segments, role: str, sample_id: SampleId) -> dict[str, Any]:
    found = value.best_first() if role == "prediction" else [one for one in value if one.is_thing is not False]
    if role == "prediction" and any(one.score is None for one in found):
        raise ValueError(f"A segment in the prediction of sample {sample_id!r} has no `score`.")
    return {
        "masks": [one.mask for one in found],
        "labels": [one.class_id for one in found],
        "scores": [one.score for one in found] if role == "prediction" else None,
        "iscrowd": [int(one.is_crowd) for one in found],
    }


def _from_segments(value: Mapping[str, Any], role: str, sample_id: SampleId) -> dict[str, Any]:
    masks = value["segmentation"]
    is_map = masks is not None and _is_map(masks, value["segments_info"])
    entries = segment_entries(value["segments_info"], role, sample_id, of_map=is_map)
    infos = [entry.info for entry in entries]
    kept = [info.get("isthing", True) for info in infos]
    if masks is None and not infos:  # nothing was found
        masks = []
    elif masks is None:
        raise ValueError(f"The {role} of sample {sample_id!r} lists {len(infos)} segments, but has no masks (None).")
    elif is_map:
        ids = [entry.id for entry in entries]
        segment_ids = to_numpy(as_segment_map(masks, ids, role, sample_id))
        if role == "reference":  # of a prediction somebody may choose segments
            check_listed(np.unique(segment_ids), ids, role, sample_id)
        masks = [segment_ids == number if keep else None for number, keep in zip(ids, kept, strict=True)]
        if role == "prediction":  # instances that others cover wholly are still listed
            kept = [mask is not None and bool(mask.any()) for mask in masks]
    elif len(masks) != len(infos):
        raise ValueError(
            f"The {role} of sample {sample_id!r} has {len(masks)} masks but {len(infos)} entries in segments_info. Of "
            "Transformers' results post-process with return_coco_annotation=False."
        )
    kept_entries = [entry for entry, keep in zip(entries, kept, strict=True) if keep]
    kept_infos = [entry.info for entry in kept_entries]
    columns: dict[str, Any] = {
        "masks": [mask for mask, keep in zip(masks, kept, strict=True) if keep],
        "labels": [entry.category for entry in kept_entries],
        "iscrowd": [info.get("iscrowd", 0) for info in kept_infos],
        "area": [info.get("area") for info in kept_infos],
    }
    if role == "prediction":
        if any(info.get("score") is None for info in kept_infos):
            raise ValueError(f"A segment in the prediction of sample {sample_id!r} has no `score`.")
        columns["scores"] = [info["score"] for info in kept_infos]
    return columns


def _is_map(value: Any, segments_info: Any) -> bool:
    """Whether ``value`` is one map of segment ids rather than one mask per segment."""
    if isinstance(value, list | tuple):  # rows of a map, unless there are as many as segments
        is_nested = all(isinstance(row, list | tuple) and all(is_number(number) for number in row) for row in value)
        return is_nested and len({len(row) for row in value}) == 1 and len(value) != len(segments_info or ())
    shape = getattr(value, "shape", None)
    return shape is None or len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4) and shape[0] not in (3, 4))


def _encode(mask: Any, mask_api: Any, name: str, number: int) -> dict[str, Any]:
    """COCO's compressed encoding of a mask; another encoding is checked before pycocotools sees it, which may crash."""
    try:
        if isinstance(mask, Mapping):
            (height, width), counts = checked_run_lengths(mask)
            return mask_api.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
        if isinstance(mask, list | tuple) and is_polygon(mask):
            raise ValueError(_NO_POLYGON)
        array = as_array(mask)
        if array.ndim == 3 and len(array) == 1:
            array = array[0]
        try:
            inside = binary_mask(array)
        except ValueError:
            if _is_outline(mask):
                raise ValueError(_NO_POLYGON) from None
            raise
    except ValueError as error:
        raise ValueError(f"{name}, mask {number}: {error}") from None
    if inside.ndim != 2:
        raise ValueError(f"{name} has a mask of shape {inside.shape} (number {number}); expected (height, width).")
    return mask_api.encode(np.asfortranarray(inside).view(np.uint8))  # one change of order, none of type


def _is_outline(value: Any) -> bool:
    """Whether what holds no mask's values is a polygon, a contour or a list of such."""
    if hasattr(value, "ndim"):
        return is_polygon(value) or tuple(value.shape[1:]) == (1, 2)
    return isinstance(value, list | tuple) and len(value) > 0 and all(is_polygon(part) for part in value)


def _to_list(column: Any) -> list[Any]:
    return column.tolist() if hasattr(column, "tolist") else list(column)
