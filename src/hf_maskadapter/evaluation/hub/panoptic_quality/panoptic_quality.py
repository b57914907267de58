"""`evaluate.load` of this folder gives `hf_maskadapter.evaluation.PanopticQuality`."""

from hf_maskadapter.evaluation import PanopticQuality

__all__ = ["PanopticQuality"]
