"""Mask-Adapter (CVPR 2025) as a Transformers-style package for open-vocabulary segmentation.

Importing it is cheap: public names are loaded when they are first used. Its classes join Transformers' Auto classes and
the `zero-shot-image-segmentation` pipeline when Transformers is imported, whichever of the two comes first.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

__version__ = "0.2.0"

_MODULE_OF = {
    "ConvNextClipConfig": "model.configuration_clips",
    "FcClipMaskGeneratorConfig": "model.configuration_mask_generators",
    "MaskAdapterConfig": "model.configuration_maskadapter",
    "ResNetClipConfig": "model.configuration_clips",
    "SamMaskGeneratorConfig": "model.configuration_mask_generators",
    "SiglipClipConfig": "model.configuration_clips",
    "UniversalMaskGeneratorConfig": "model.configuration_mask_generators",
    "VitClipConfig": "model.configuration_clips",
    "DenseClipModel": "model.modeling_clip",
    "DenseClipOutput": "model.modeling_clip",
    "ConvNextClipModel": "model.modeling_clip_convnext",
    "ResNetClipModel": "model.modeling_clip_resnet",
    "SiglipClipModel": "model.modeling_clip_vit",
    "VitClipModel": "model.modeling_clip_vit",
    "load_clip": "model.modeling_clip_vit",
    "EncodedVocabulary": "model.modeling_text_classifier",
    "FcClipMaskGenerator": "model.modeling_mask_generator_fcclip",
    "MaskGeneratorOutput": "model.modeling_mask_generator",
    "SamMaskGenerator": "model.modeling_mask_generator_sam",
    "UniversalMaskGenerator": "model.modeling_mask_generator_universal",
    "ClassifiedMask": "model.mask_classification",
    "read_masks": "model.mask_collections",
    "MaskAdapterForOpenVocabularySegmentation": "model.modeling_maskadapter",
    "MaskAdapterModel": "model.modeling_adapter",
    "MaskAdapterOutput": "model.modeling_adapter",
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
    "model.configuration_clips",
    "model.configuration_mask_generators",
    "model.configuration_maskadapter",
    "model.modeling_clip_convnext",
    "model.modeling_clip_resnet",
    "model.modeling_clip_vit",
    "model.modeling_mask_generator_fcclip",
    "model.modeling_mask_generator_universal",
    "model.modeling_mask_generator_sam",
    "model.modeling_adapter",
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

    It acts right after the first import of Transformers, or of a module of the model's that imports it, whichever comes
    first. Modules that are imported on the way wait for the outermost one, since they are half loaded until then.
    """

    def __init__(self):
        self.depth = 0

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname != "transformers" and not fullname.startswith(f"{__name__}.model."):
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in finders)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module) -> None:
                self.depth += 1
                try:
                    load(module)
                finally:
                    self.depth -= 1
                if self.depth == 0 and "transformers" in sys.modules and self in sys.meta_path:
                    sys.meta_path.remove(self)
                    _register_with_transformers()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
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
