"""The metrics as functions: check and count one sample, merge counts, compute. Needs neither torch nor Evaluate."""

from .label_maps import PairCounts, pair_counts
from .mask_average_precision import DetectionRecords, mask_average_precision, match_detections, merge_detections
from .mean_iou import ConfusionCounts, confusion_matrix, count_confusions, mean_iou, merge_confusions
from .panoptic_quality import PanopticCounts, match_panoptic, merge_panoptic, panoptic_quality

__all__ = [
    "ConfusionCounts",
    "DetectionRecords",
    "PairCounts",
    "PanopticCounts",
    "confusion_matrix",
    "count_confusions",
    "mask_average_precision",
    "match_detections",
    "match_panoptic",
    "mean_iou",
    "merge_confusions",
    "merge_detections",
    "merge_panoptic",
    "pair_counts",
    "panoptic_quality",
]
