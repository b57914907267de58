"""`evaluate.load` of this folder gives `hf_maskadapter.evaluation.MaskAveragePrecision`."""

from hf_maskadapter.evaluation import MaskAveragePrecision

__all__ = ["MaskAveragePrecision"]
