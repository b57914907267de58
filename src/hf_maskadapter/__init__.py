"""Mask-Adapter (CVPR 2025) as a Transformers-style package for open-vocabulary segmentation.

Importing it is cheap: public names are loaded when they are first used. Its classes join Transformers' Auto classes and
the `zero-shot-image-segmentation` pipeline when Transformers is imported, whichever of the two comes first.
"""

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.2.0"

_MODULE_OF = {
    "BatchSegmenter": "distributed.batch_segmenter",
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
    "use_int8": "model.cpu_mlp",
    "ClassifiedMask": "model.mask_classification",
    "read_masks": "model.mask_collections",
    "MaskAdapterForOpenVocabularySegmentation": "model.modeling_maskadapter",
    "MaskAdapterModel": "model.modeling_adapter",
    "MaskAdapterOutput": "model.modeling_adapter",
    "MaskAdapterSegmentationOutput": "model.modeling_maskadapter",
    "MaskAdapterImageProcessor": "model.image_processing_maskadapter",
    "MaskAdapterImageProcessorPil": "model.image_processing_maskadapter",
    "MaskAdapterProcessor": "model.processing_maskadapter",
    "segment": "model.post_processing_maskadapter",
    "PROMPT_TEMPLATES": "model.vocabulary",
    "Vocabulary": "model.vocabulary",
    "VocabularyClass": "model.vocabulary",
    "Segment": "model.segments",
    "Segments": "model.segments",
    "ZeroShotImageSegmentationPipeline": "model.pipeline_zero_shot_image_segmentation",
    "convert_checkpoint": "conversion",
    "export_model": "export",
    "load_with_adapter": "hub.adapter_weights",
    "load_model": "loading",
    "load_segmenter": "loading",
    "load_vocabulary": "encoded_vocabularies.form",
    "save_vocabulary": "encoded_vocabularies.form",
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

#: Where things have gone since version 0.1, whose old paths work until 0.3 with a warning. A line is
#: `"old.module": "new.module"` for a whole module, and `"old.module:name": "new.module"` for one name of a module that
#: may be there still; `"new.module:new_name"` where the name's spelling has changed, too. Paths lack the package's
#: name; `lab.` is the laboratory, which is in the repository alone. Whoever moves or renames what an `__all__` held in
#: 0.1 adds a line; tests/test_old_paths.py walks them all, and says which is missing.
_MOVED: dict[str, str] = {
    "adapter_weights": "hub.adapter_weights",
    "atomic_files": "files",
    "benchmarks": "lab.benchmarks",
    "benchmarks.dense_opponent": "lab.benchmarks.dense_opponent",
    "benchmarks.metrics": "lab.benchmarks.metrics",
    "benchmarks.paper": "lab.benchmarks.paper",
    "benchmarks.paper_report": "lab.benchmarks.paper_report",
    "benchmarks.process_memory": "lab.benchmarks.process_memory",
    "benchmarks.realistic_inputs": "lab.benchmarks.realistic_inputs",
    "benchmarks.speed": "lab.benchmarks.speed",
    "benchmarks.speed_cases": "lab.benchmarks.speed_cases",
    "configuration_maskadapter": "model.configuration_maskadapter",
    "configuration_maskadapter:ConvNextClipConfig": "model.configuration_clips",
    "configuration_maskadapter:DenseClipConfig": "model.configuration_clips",
    "configuration_maskadapter:FcClipMaskGeneratorConfig": "model.configuration_mask_generators",
    "configuration_maskadapter:ResNetClipConfig": "model.configuration_clips",
    "configuration_maskadapter:SamMaskGeneratorConfig": "model.configuration_mask_generators",
    "configuration_maskadapter:SiglipClipConfig": "model.configuration_clips",
    "configuration_maskadapter:UniversalMaskGeneratorConfig": "model.configuration_mask_generators",
    "configuration_maskadapter:VitClipConfig": "model.configuration_clips",
    "configuration_maskadapter:wrap_clip_config": "model.configuration_clips",
    "conversion.layouts:recognise": "conversion.layouts:recognize",
    "conversion.saving:replacing": "files:replacing_folder",
    "data.pictures": "data.opening",
    "data.preparation:PanopticAnnotation": "data.raw_layouts",
    "data.preparation:RAW_LAYOUTS": "data.raw_layouts",
    "data.preparation:RawLayout": "data.raw_layouts",
    "data.preparation:RawRecord": "data.raw_layouts",
    "data.preparation:decode_rle": "model.masks:decode_run_lengths",
    "data.samples:id_to_rgb": "model.masks:ids_to_colors",
    "data.samples:rgb_to_id": "model.masks:colors_to_ids",
    "data:id_to_rgb": "model.masks:ids_to_colors",
    "data:rgb_to_id": "model.masks:colors_to_ids",
    "evaluation.command": "cli.evaluation",
    "evaluation.command:load_predictor": "evaluation.loading",
    "evaluation.functional:rgb_to_id": "model.masks:colors_to_ids",
    "evaluation.predictors:LabelMatching": "evaluation.options",
    "evaluation.predictors:UniversalPredictor": "evaluation.universal_predictor",
    "evaluation.predictors:match_labels": "evaluation.universal_predictor",
    "evaluation.presets": "evaluation.benchmarks",
    "evaluation.published": "hub.published",
    "evaluation.report:card_with_results": "hub.card_results",
    "evaluation.report:eval_results": "hub.card_results",
    "evaluation.report:markdown_table": "hub.markdown",
    "evaluation.report:model_hash": "provenance",
    "evaluation.report:percent": "hub.markdown",
    "evaluation.report:update_model_card": "hub.card_results",
    "evaluation.report:versions": "provenance",
    "evaluation:run_evaluation": "cli.evaluation",
    "exchange.coco_categories": "exchange.coco_common",
    "exchange.coco_categories:from_categories": "exchange.coco_common:read_categories",
    "exchange.coco_instance:decode_mask": "model.masks:coco_mask",
    "exchange.coco_instance:encode_mask": "model.masks:encode_compressed_run_lengths",
    "exchange.formats:read_json_file": "files:read_json",
    "exchange.formats:write_json_list": "files",
    "exchange.formats:write_json_lists": "files",
    "exchange.results": "exchange.reading",
    "exchange.results:PictureResult": "model.segments:Segments",
    "exchange.results:ResultSegment": "model.segments:Segment",
    "exchange.results:polygon_mask": "model.masks",
    "exchange.run_lengths": "model.masks",
    "exchange:PictureResult": "model.segments:Segments",
    "exchange:ResultSegment": "model.segments:Segment",
    "hub_errors": "hub.errors",
    "image_processing_maskadapter": "model.image_processing_maskadapter",
    "image_processing_maskadapter:as_viewer_shows": "model.pictures",
    "image_processing_maskadapter:read_picture": "model.pictures",
    "loss_maskadapter": "training.losses",
    "mask_classification": "model.mask_classification",
    "mask_formats": "model.masks",
    "mask_formats:ReadMasks": "model.mask_collections",
    "mask_formats:decode_rle": "model.masks:decode_run_lengths",
    "mask_formats:draw_polygons": "model.masks:coco_mask",
    "mask_formats:read_masks": "model.mask_collections",
    "miniature.building": "lab.miniature.building",
    "miniature.measuring": "lab.miniature.measuring",
    "miniature.pretraining": "lab.miniature.pretraining",
    "modeling_clip_base": "model.modeling_clip",
    "modeling_convnext_clip": "model.modeling_clip_convnext",
    "modeling_mask2former_attention": "model.modeling_mask2former_attention",
    "modeling_mask_generators": "model.modeling_mask_generator_fcclip",
    "modeling_mask_generators:MaskGeneratorOutput": "model.modeling_mask_generator",
    "modeling_mask_generators:pool_inside_masks": "model.mask_embedding",
    "modeling_maskadapter": "model.modeling_maskadapter",
    "modeling_maskadapter:MaskAdapterModel": "model.modeling_adapter",
    "modeling_maskadapter:MaskAdapterOutput": "model.modeling_adapter",
    "modeling_picture_mask_generator": "model.modeling_mask_generator",
    "modeling_resnet_clip": "model.modeling_clip_resnet",
    "modeling_sam_mask_generator": "model.modeling_mask_generator_sam",
    "modeling_sparse_adapter": "model.modeling_adapter_maps",
    "modeling_text_classifier": "model.modeling_text_classifier",
    "modeling_universal_mask_generator": "model.modeling_mask_generator_universal",
    "modeling_vit_clip": "model.modeling_clip_vit",
    "pipeline_zero_shot_image_segmentation": "model.pipeline_zero_shot_image_segmentation",
    "post_processing_maskadapter": "model.post_processing_maskadapter",
    "prefetching": "model.prefetching",
    "processing_maskadapter": "model.processing_maskadapter",
    "publishing": "hub",
    "publishing.cards": "hub.cards",
    "publishing.cards:versions_text": "provenance",
    "publishing.citations": "hub.citations",
    "publishing.collection": "lab.cards.collection",
    "publishing.contents": "hub.contents",
    "publishing.contents:recognise": "hub.contents:recognize",
    "publishing.miniature": "lab.cards.miniature",
    "publishing.pushing": "hub.pushing",
    "publishing.released": "hub.released",
    "publishing.released:RELEASED": "hub.released:RELEASED_PRESETS",
    "publishing.released:ReleasedModel": "hub.released_models",
    "remote_code": "hub.remote_code",
    "running": "cli.errors",
    "semantic_label_search": "model.semantic_label_search",
    "training.arguments": "training.options",
    "training.arguments:TrainingArguments": "training.options:TrainingOptions",
    "training.arguments:build_parser": "cli.options:make_parser",
    "training.arguments:parse_arguments": "cli.train:parse_options",
    "training.arguments:with_preset": "cli.train:training_options",
    "training.command": "cli.training",
    "training.feature_cache": "training.cache",
    "training.options:DataArguments": "training.options:DataOptions",
    "training.options:build_option_parser": "cli.options:make_parser",
    "training.options:option": "data.options",
    "training.pretraining_arguments": "training.options",
    "training.pretraining_arguments:PretrainingArguments": "training.options:PretrainingOptions",
    "training.pretraining_arguments:parse_pretraining_arguments": "cli.pretrain:parse_options",
    "training.pretraining_command": "cli.pretraining",
    "training.pretraining_command:CHECKPOINT_FILE": "cli.pretraining:FORMER_CHECKPOINT",
    "training.pretraining_command:check_output": "cli.pretraining:require_no_former_checkpoint",
    "training.stages": "training.stage",
    "training.stages:AdapterStage": "training.adapter_stages",
    "training.stages:GroundTruthWarmup": "training.adapter_stages",
    "training.stages:MaskGeneratorTraining": "training.generator_stage",
    "training.stages:MixedMaskTraining": "training.adapter_stages",
    "training.stages:STAGES": "cli.training",
    "training.step_log": "training.log",
    "visualization.colors": "model.class_colors",
    "visualization.colors:INK": "visualization.lettering",
    "visualization.colors:PAPER": "visualization.lettering",
    "visualization.segments": "visualization.index_map",
    "visualization.segments:Segments": "visualization.index_map:IndexMap",
    "visualization.segments:as_array": "model.masks",
    "visualization.segments:as_picture": "model.pictures:as_viewer_shows",
    "vocabulary": "model.vocabulary",
}

__all__ = ["__version__", *_MODULE_OF]


def _register_with_transformers() -> None:
    for module in _REGISTERING_MODULES:
        importlib.import_module(f"{__name__}.{module}")


def _spec_of_others(finder: MetaPathFinder, fullname: str, path, target) -> ModuleSpec | None:
    """What the import hooks behind one of ours find."""
    if finder not in sys.meta_path:
        return None
    behind = sys.meta_path[sys.meta_path.index(finder) + 1 :]
    return next(filter(None, (other.find_spec(fullname, path, target) for other in behind)), None)


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
        spec = _spec_of_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
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


def _new_path(old: str) -> tuple[str, str]:
    """Where a line of `_MOVED` leads: a module, and a name in it, empty for a whole module."""
    path, _, name = _MOVED[old].partition(":")
    return path, name or old.partition(":")[2]


def _import_moved(old: str) -> Any:
    """The module or object that a line of `_MOVED` leads to.

    Raises:
        ImportError: if it left the package and its new home is not at hand.
    """
    path, name = _new_path(old)
    try:
        module = importlib.import_module(path if path.startswith("lab.") else f"{__name__}.{path}")
    except ModuleNotFoundError as error:
        if not path.startswith("lab.") or (error.name or "").partition(".")[0] != "lab":
            raise
        raise ImportError(
            f"{__name__}.{old.replace(':', '.')} left the package with version 0.2: it is {path} in the project's "
            "repository. Clone it, and run Python in the clone's folder."
        ) from None
    return getattr(module, name) if name else module


def _warn_of_move(old: str, stacklevel: int) -> None:
    new = ".".join(filter(None, _new_path(old)))
    warnings.warn(
        f"{__name__}.{old.replace(':', '.')} is {new if new.startswith('lab.') else f'{__name__}.{new}'} now; the old "
        "path works until version 0.3.",
        DeprecationWarning,
        stacklevel=stacklevel + 1,
    )


def _look_for_moved(module: str, otherwise: Callable[[str], Any]) -> Callable[[str], Any]:
    """A module's `__getattr__` that knows the names which moved away from it."""

    def find(name: str) -> Any:
        old = f"{module}:{name}"
        if old not in _MOVED:
            return otherwise(name)
        _warn_of_move(old, stacklevel=2)
        return _import_moved(old)

    return find


class _MovedModule(Loader):
    """Loads a module that stands where another one was: the same objects, found when they are asked for."""

    def __init__(self, old: str):
        self.old = old

    def create_module(self, spec: ModuleSpec) -> None:  # noqa: ARG002
        return None  # a plain module will do

    def exec_module(self, module: ModuleType) -> None:
        _warn_of_move(self.old, stacklevel=2)
        new = _import_moved(self.old)
        module.__doc__ = new.__doc__
        module.__getattr__ = _look_for_moved(self.old, lambda name: getattr(new, name))  # type: ignore[method-assign]


class _FindMoved(MetaPathFinder):
    """Import hook for old paths: stands in for modules that moved, and for names that left a module."""

    names_left = frozenset(old.partition(":")[0] for old in _MOVED if ":" in old)

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        old = fullname.removeprefix(f"{__name__}.")
        if old in _MOVED:
            return ModuleSpec(fullname, _MovedModule(old), is_package=True)
        if old == fullname or old not in self.names_left:
            return None
        spec = _spec_of_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_add(module: ModuleType) -> None:
                def missing(name: str) -> Any:
                    raise AttributeError(f"module {fullname!r} has no attribute {name!r}")

                load(module)
                otherwise = module.__dict__.get("__getattr__", missing)
                module.__getattr__ = _look_for_moved(old, otherwise)  # type: ignore[method-assign]

            spec.loader.exec_module = load_and_add  # type: ignore[method-assign]
        return spec


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


sys.meta_path.insert(0, _FindMoved())
if "transformers" in sys.modules:
    _register_with_transformers()
else:
    sys.meta_path.insert(0, _RegisterOnFirstUse())
