"""`evaluate.load` of this folder gives `hf_maskadapter.evaluation.MeanIoU`."""

from hf_maskadapter.evaluation import MeanIoU

__all__ = ["MeanIoU"]
