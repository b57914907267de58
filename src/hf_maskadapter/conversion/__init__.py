"""Released checkpoints of OpenCLIP, FC-CLIP, MAFT+ and Mask-Adapter → models of this package."""

from .convert import Conversion, ConversionReport, convert_checkpoint
from .errors import ConversionError
from .presets import PRESETS, ConversionSettings, Preset
from .tokenizer import build_clip_tokenizer

__all__ = [
    "PRESETS",
    "Conversion",
    "ConversionError",
    "ConversionReport",
    "ConversionSettings",
    "Preset",
    "build_clip_tokenizer",
    "convert_checkpoint",
]
