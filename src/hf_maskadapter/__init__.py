"""Mask-Adapter (CVPR 2025) as a Transformers-style package for open-vocabulary segmentation.

Importing it is cheap: public names are loaded when they are first used. Its classes join Transformers' Auto classes and
the `zero-shot-image-segmentation` pipeline when Transformers is imported, whichever of the two comes first.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

__version__ = "0.2.0"

_MODULE_OF = {
    "ConvNextClipConfig": "model.configuration_maskadapter",
    "FcClipMaskGeneratorConfig": "model.configuration_maskadapter",
    "MaskAdapterConfig": "model.configuration_maskadapter",
    "ResNetClipConfig": "model.configuration_maskadapter",
    "SamMaskGeneratorConfig": "model.configuration_maskadapter",
    "SiglipClipConfig": "model.configuration_maskadapter",
    "UniversalMaskGeneratorConfig": "model.configuration_maskadapter",
    "VitClipConfig": "model.configuration_maskadapter",
    "DenseClipModel": "model.modeling_clip",
    "DenseClipOutput": "model.modeling_clip",
    "ConvNextClipModel": "model.modeling_clip_convnext",
    "ResNetClipModel": "model.modeling_clip_resnet",
    "SiglipClipModel": "model.modeling_clip_vit",
    "VitClipModel": "model.modeling_clip_vit",
    "load_clip": "model.modeling_clip_vit",
    "EncodedVocabulary": "model.modeling_text_classifier",
    "FcClipMaskGenerator": "model.modeling_mask_generator_fcclip",
    "MaskGeneratorOutput": "model.modeling_mask_generator_fcclip",
    "SamMaskGenerator": "model.modeling_mask_generator_sam",
    "UniversalMaskGenerator": "model.modeling_mask_generator_universal",
    "ClassifiedMask": "model.mask_classification",
    "read_masks": "model.mask_collections",
    "MaskAdapterForOpenVocabularySegmentation": "model.modeling_maskadapter",
    "MaskAdapterModel": "model.modeling_maskadapter",
    "MaskAdapterOutput": "model.modeling_maskadapter",
    "MaskAdapterSegmentationOutput": "model.modeling_maskadapter",
    "MaskAdapterImageProcessor": "model.image_processing_maskadapter",
    "MaskAdapterImageProcessorPil": "model.image_processing_maskadapter",
    "MaskAdapterProcessor": "model.processing_maskadapter",
    "PROMPT_TEMPLATES": "model.vocabulary",
    "Vocabulary": "model.vocabulary",
    "VocabularyClass": "model.vocabulary",
    "ZeroShotImageSegmentationPipeline": "model.pipeline_zero_shot_image_segmentation",
    "convert_checkpoint": "conversion",
    "load_with_adapter": "hub.adapter_weights",
}
_REGISTERING_MODULES = (
    "model.configuration_maskadapter",
    "model.modeling_clip_convnext",
    "model.modeling_clip_resnet",
    "model.modeling_clip_vit",
    "model.modeling_mask_generator_fcclip",
    "model.modeling_mask_generator_universal",
    "model.modeling_mask_generator_sam",
    "model.modeling_maskadapter",
    "model.image_processing_maskadapter",
    "model.processing_maskadapter",
    "model.pipeline_zero_shot_image_segmentation",
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
        {"transformers"}
        | {f"{__name__}.{module}" for module in (*_REGISTERING_MODULES, "model.modeling_text_classifier")}
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
