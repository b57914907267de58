"""Open-vocabulary segmentation by exported models, on ONNX Runtime or OpenVINO, without PyTorch and Transformers."""

from .export.manifest import ExportedModelError
from .export.segmenter import ExportedSegmenter
from .model.mask_collections import read_masks
from .model.segments import Segment, Segments
from .model.vocabulary import PROMPT_TEMPLATES, Vocabulary, VocabularyClass

__all__ = [
    "PROMPT_TEMPLATES",
    "ExportedModelError",
    "ExportedSegmenter",
    "Segment",
    "Segments",
    "Vocabulary",
    "VocabularyClass",
    "read_masks",
]
