"""Mask-Adapter (CVPR 2025) as a Transformers-style package for open-vocabulary segmentation.

Importing it is cheap: public names are loaded when they are first used. Its classes join Transformers' Auto classes and
the `zero-shot-image-segmentation` pipeline when Transformers is imported, whichever of the two comes first.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

__version__ = "0.1.0"

_MODULE_OF = {
    "ConvNextClipConfig": "configuration_maskadapter",
    "FcClipMaskGeneratorConfig": "configuration_maskadapter",
    "MaskAdapterConfig": "configuration_maskadapter",
    "ResNetClipConfig": "configuration_maskadapter",
    "SamMaskGeneratorConfig": "configuration_maskadapter",
    "SiglipClipConfig": "configuration_maskadapter",
    "UniversalMaskGeneratorConfig": "configuration_maskadapter",
    "VitClipConfig": "configuration_maskadapter",
    "DenseClipModel": "modeling_clip_base",
    "DenseClipOutput": "modeling_clip_base",
    "ConvNextClipModel": "modeling_convnext_clip",
    "ResNetClipModel": "modeling_resnet_clip",
    "SiglipClipModel": "modeling_vit_clip",
    "VitClipModel": "modeling_vit_clip",
    "load_clip": "modeling_vit_clip",
    "EncodedVocabulary": "modeling_text_classifier",
    "FcClipMaskGenerator": "modeling_mask_generators",
    "MaskGeneratorOutput": "modeling_mask_generators",
    "SamMaskGenerator": "modeling_sam_mask_generator",
    "UniversalMaskGenerator": "modeling_universal_mask_generator",
    "ClassifiedMask": "mask_classification",
    "read_masks": "mask_formats",
    "MaskAdapterForOpenVocabularySegmentation": "modeling_maskadapter",
    "MaskAdapterModel": "modeling_maskadapter",
    "MaskAdapterOutput": "modeling_maskadapter",
    "MaskAdapterSegmentationOutput": "modeling_maskadapter",
    "MaskAdapterImageProcessor": "image_processing_maskadapter",
    "MaskAdapterImageProcessorPil": "image_processing_maskadapter",
    "MaskAdapterProcessor": "processing_maskadapter",
    "PROMPT_TEMPLATES": "vocabulary",
    "Vocabulary": "vocabulary",
    "VocabularyClass": "vocabulary",
    "ZeroShotImageSegmentationPipeline": "pipeline_zero_shot_image_segmentation",
    "convert_checkpoint": "conversion",
    "load_with_adapter": "adapter_weights",
}
_REGISTERING_MODULES = (
    "configuration_maskadapter",
    "modeling_convnext_clip",
    "modeling_resnet_clip",
    "modeling_vit_clip",
    "modeling_mask_generators",
    "modeling_universal_mask_generator",
    "modeling_sam_mask_generator",
    "modeling_maskadapter",
    "image_processing_maskadapter",
    "processing_maskadapter",
    "pipeline_zero_shot_image_segmentation",
)

__all__ = ["__version__", *_MODULE_OF]


def _register_with_transformers() -> None:
    for module in _REGISTERING_MODULES:
        importlib.import_module(f"{__name__}.{module}")


class _RegisterOnFirstUse(MetaPathFinder):
    """Import hook that registers this package's classes with Transformers' Auto classes once.

    It acts right after the first import of Transformers, or of a module of this package that needs Transformers,
    whichever comes first.
    """

    triggers = frozenset(
        {"transformers"} | {f"{__name__}.{module}" for module in (*_REGISTERING_MODULES, "modeling_text_classifier")}
    )

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname not in self.triggers:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module) -> None:
                load(module)
                _register_with_transformers()

            spec.loader.exec_module = load_and_register
        return spec


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if "transformers" in sys.modules:
    _register_with_transformers()
else:
    sys.meta_path.insert(0, _RegisterOnFirstUse())
