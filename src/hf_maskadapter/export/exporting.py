"""Export a segmenter: graphs by Transformers' own exporter, in a folder with all they need, compared with PyTorch."""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim

from ..files import replacing_folder, write_json
from ..loading import MINIATURE, load_model, print_to_stderr
from ..model.modeling_mask_generator_fcclip import FcClipMaskGenerator
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import padding_id
from ..model.pipeline_inputs import INSTANCE_THRESHOLD
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..provenance import model_hash, versions
from .engines import IN_FLOAT32, PROPOSALS
from .graphs import (
    AdapterGraph,
    ClassGraph,
    PictureGraph,
    PoolingGraph,
    ProposalGraph,
    TextGraph,
    TextTransferGraph,
    sizes_left_free,
)
from .manifest import MANIFEST, TOKENIZER, Manifest, Settings, describe_files, is_exported

Format = Literal["onnx", "openvino"]
ExportedType = Literal["float32", "bfloat16", "int8"]
FORMATS = ("onnx", "openvino")
EXPORTED_TYPES = ("float32", "bfloat16", "int8")

OPSET = 18
"""The first ONNX opset in which a scatter takes the maximum, which the classes' synonyms need."""

_LARGEST_INSIDE = 2**28  # bytes of weights inside a graph's own file; larger ones lie beside it
_LEAST_AGREEMENT, _LEAST_AGREEMENT_OF_FEWER_BITS = 0.99, 0.9
_SCENES = 16
_PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")


class ExportError(ValueError):
    """A model cannot be exported; the message says what about it, and what can be done."""


@dataclass(frozen=True)
class Graph:
    """A module to trace, inputs to trace it with, and which of their dimensions are free."""

    module: torch.nn.Module
    inputs: dict[str, Tensor]
    free: dict[str, tuple[int, ...]]


def export_model(
    model: str | os.PathLike[str] | MaskAdapterForOpenVocabularySegmentation = MINIATURE,
    output: str | os.PathLike[str] = "exported",
    *,
    processor: MaskAdapterProcessor | None = None,
    format: Format = "onnx",
    dtype: ExportedType = "float32",
    calibration: Iterable[Any] | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = print_to_stderr,
) -> Manifest:
    """Write a model as graphs with a free vocabulary, and all that is needed to run them without PyTorch.

    Picture size, numbers of classes, synonyms and masks stay free.

    Args:
        model: a name, a folder or a Hub id, as [`load_model`] takes it; or a model.
        output: folder to write: it appears complete or not at all.
        processor: of a model that is given as such.
        format: `"onnx"`, to be run by ONNX Runtime, or `"openvino"`.
        dtype: `"float32"`, `"bfloat16"` (OpenVINO alone) or `"int8"`; mask proposals stay in fp32.
        calibration: a few pictures like those that will be segmented, 8 or more, in any form that the pipeline takes.
            int8 through OpenVINO needs them, nothing else does. The embedded model has scenes of its own.
        overwrite: whether to replace an exported model in the folder.
        report: takes each line about what is being done.

    Returns:
        What `manifest.json` in the folder holds, the measured difference from PyTorch included.

    Raises:
        ExportError: if the model has a part that cannot be exported, saying which, or the format has no such type.
        FileExistsError: if the folder holds something else, or an exported model and `overwrite` is not given.
        ImportError: if the extra `export` is not installed.
    """
    _require_choice("format", format, FORMATS)
    _require_choice("dtype", dtype, EXPORTED_TYPES)
    if format == "onnx" and dtype == "bfloat16":
        raise ExportError(
            'ONNX Runtime computes nothing in bfloat16 on processors: choose format="openvino", or dtype="int8".'
        )
    _require_packages(format)
    folder = Path(output)
    _require_free(folder, overwrite)
    pictures = _calibration_pictures(model, calibration, format, dtype)
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else model.name_or_path or type(model).__name__
    if isinstance(model, (str, os.PathLike)):
        model, processor = load_model(model, dtype="float32", report=report)
    elif processor is None:
        raise ExportError("Give the processor of a model that is given as such: export_model(model, processor=...).")
    segmenter = _prepared(model)
    settings = _settings(segmenter, processor)
    with replacing_folder(folder) as unfinished:
        processor.tokenizer.backend_tokenizer.save(str(unfinished / TOKENIZER))
        files = {}
        for graph, parts in graphs_of(segmenter).items():
            report(f"exporting {graph} …")
            files[graph] = write_graph(graph, parts, unfinished)
        if dtype == "int8":
            from .quantization import quantize_for_onnxruntime, quantize_for_openvino

            report("lowering to int8 …")
            if format == "onnx":
                quantize_for_onnxruntime(unfinished, files)
            else:
                quantize_for_openvino(unfinished, files, settings, pictures)
        if format == "openvino":
            files = {graph: as_openvino(unfinished / file, dtype) for graph, file in files.items()}
        manifest = Manifest(
            format=format,
            dtype=dtype,
            graphs=files,
            files=describe_files(unfinished),
            settings=settings,
            model={"name": name, "hash": model_hash(segmenter)},
            versions=_versions(),
        )
        write_json(unfinished / MANIFEST, manifest.to_json(), indent=1)
        report("comparing with PyTorch …")
        from .comparison import measure_difference

        difference = measure_difference(segmenter, processor, unfinished)
        least = _LEAST_AGREEMENT if dtype == "float32" else _LEAST_AGREEMENT_OF_FEWER_BITS
        if min(difference["least_cosine"], difference.get("equal_pixels", 1)) < least:
            raise ExportError(f"The graphs give other results than PyTorch, so that nothing is written: {difference}.")
        manifest = replace(manifest, difference=difference)
        write_json(unfinished / MANIFEST, manifest.to_json(), indent=1)
    return manifest


def _require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ExportError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def _calibration_pictures(model: Any, calibration: Iterable[Any] | None, format: str, dtype: str) -> list[Any]:
    """Pictures that ranges of activations are seen in.

    Raises:
        ExportError: if they are needed and there are none, or there are and they are not needed.
    """
    if format != "openvino" or dtype != "int8":
        if calibration is not None:
            raise ExportError("calibration pictures have an effect on int8 through OpenVINO alone: leave them out.")
        return []
    if calibration is None and model == MINIATURE:
        from ..data.scenes import SceneDataset

        return [row["image"] for row in SceneDataset("train", _SCENES)]
    pictures = list(calibration or [])
    if not pictures:
        raise ExportError(
            "int8 through OpenVINO needs a few pictures like those that will be segmented, in which ranges are seen: "
            "calibration=[...] or --calibration FOLDER."
        )
    return pictures


def _require_packages(format: Format) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime" if format == "onnx" else "openvino"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"Exporting needs {package}: pip install 'hf-maskadapter[export]'", name=package
            ) from error


def _require_free(folder: Path, overwrite: bool) -> None:
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file: name a folder to write.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not is_exported(folder):
        raise FileExistsError(f"{folder} holds something else than an exported model: name another folder.")
    if not overwrite:
        raise FileExistsError(f"{folder} holds an exported model already: name another folder, or overwrite it.")


def _prepared(model: MaskAdapterForOpenVocabularySegmentation) -> MaskAdapterForOpenVocabularySegmentation:
    """The model in fp32 and evaluation mode, after checking that it can be exported."""
    if not isinstance(model, MaskAdapterForOpenVocabularySegmentation):
        raise ExportError(
            f"{type(model).__name__} is not a MaskAdapterForOpenVocabularySegmentation, and no other is exported."
        )
    if model.mask_generator is not None and not isinstance(model.mask_generator, FcClipMaskGenerator):
        raise ExportError(
            f"The mask generator {type(model.mask_generator).__name__} prepares pictures in ways that no graph holds: "
            "export the model without it (mask_generator=None) and give masks, or use PyTorch."
        )
    if model.config.mask_embedding == "crop":
        raise ExportError('mask_embedding="crop" is not exported: set "adapter" or "pooling" in the configuration.')
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ExportError("Exporting starts from fp32 weights: load the model with dtype=torch.float32.")
    return model.eval()


def _settings(segmenter: MaskAdapterForOpenVocabularySegmentation, processor: MaskAdapterProcessor) -> Settings:
    config, clip = segmenter.config, segmenter.config.clip_config
    if getattr(processor.tokenizer, "backend_tokenizer", None) is None:
        raise ExportError(
            f"The tokenizer {type(processor.tokenizer).__name__} has no tokenizer.json, which runs without "
            "Transformers: use a tokenizer of the library tokenizers, such as CLIPTokenizer."
        )
    generator = segmenter.mask_generator
    image_processor = processor.image_processor
    scale = None if generator is None else generator.class_head.get_logit_scale().item()
    return Settings(
        image_processor={
            "size": _given(image_processor.size),
            "do_resize": image_processor.do_resize,
            "do_rescale": image_processor.do_rescale,
            "do_normalize": image_processor.do_normalize,
            "do_pad": image_processor.do_pad,
            "rescale_factor": image_processor.rescale_factor,
            "image_mean": list(image_processor.image_mean),
            "image_std": list(image_processor.image_std),
            "pad_size": None if image_processor.pad_size is None else _given(image_processor.pad_size),
            "size_divisor": image_processor.size_divisor,
            "resample": int(image_processor.resample),
        },
        prompt_templates=list(processor.prompt_templates),
        lower_case=processor.lower_case,
        context_length=clip.text_config.max_position_embeddings,
        pads_text=clip.pads_text,
        padding_id=padding_id(processor.tokenizer),
        vocab_size=clip.text_config.vocab_size,
        embed_dim=clip.projection_dim,
        num_feature_maps=len(clip.feature_strides),
        void_embedding=segmenter.get_void_embeds()[0].tolist(),
        logit_scale=segmenter.clip.get_logit_scale().item(),
        generator_logit_scale=scale,
        training_vocabulary=config.training_vocabulary,
        ensemble_alpha=config.ensemble_alpha,
        ensemble_beta=config.ensemble_beta,
        ensemble_on_valid_masks=config.ensemble_on_valid_masks,
        mask_embedding=str(config.mask_embedding),
        mask_pooling=config.mask_pooling,
        mask_threshold=config.mask_threshold,
        warmup_scoring=config.warmup_scoring,
        object_threshold=config.object_threshold,
        overlap_threshold=config.overlap_threshold,
        instance_threshold=INSTANCE_THRESHOLD,
        instance_top_k=config.instance_top_k,
    )


def _given(size: Any) -> dict[str, int]:
    return {name: side for name, side in dict(size).items() if side is not None}


def _versions() -> dict[str, str]:
    found = versions()
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@torch.no_grad()
def graphs_of(segmenter: MaskAdapterForOpenVocabularySegmentation) -> dict[str, Graph]:
    """The graphs of a model, with inputs of no special size: what is equal in them might be taken for the same."""
    config = segmenter.config
    divisor = config.clip_config.size_divisor
    # Few cells, but more than one in each direction, since PyTorch takes a dimension of 1 for fixed.
    cells = (max(-(-64 // divisor), 3), max(-(-96 // divisor), 5))
    pixels = torch.zeros(2, 3, *(divisor * side for side in cells))
    feature_maps = segmenter.clip.get_feature_maps(pixels)
    projected = segmenter.project_features(feature_maps[-1])[:1]
    dense, embed_dim = feature_maps[-1][:1], config.embed_dim
    length = config.clip_config.text_config.max_position_embeddings if config.clip_config.pads_text else 12
    plane = (2, 3)
    graphs = {
        "texts": Graph(
            TextGraph(segmenter),
            {"input_ids": torch.ones(3, length, dtype=torch.long)},
            {"input_ids": (0,) if config.clip_config.pads_text else (0, 1)},
        ),
        "picture": Graph(PictureGraph(segmenter), {"pixel_values": pixels}, {"pixel_values": (0, *plane)}),
        "pooling": Graph(
            PoolingGraph(segmenter),
            {"dense_features": dense, "weights": torch.ones(7, *dense.shape[2:])},
            {"dense_features": plane, "weights": (0, 1, 2)},
        ),
        "classes": Graph(
            ClassGraph(segmenter),
            {
                "embeddings": torch.ones(5, embed_dim),
                "text_embeds": torch.ones(7, embed_dim),
                "class_ids": torch.tensor([0, 0, 1, 2, 2, 3, 3]),
                "seen_classes": torch.ones(4, dtype=torch.bool),
                "void_embeds": torch.ones(1, embed_dim),
                "scale": torch.ones(1),
            },
            {name: (0,) for name in ("embeddings", "text_embeds", "class_ids", "seen_classes")},
        ),
    }
    if segmenter.mask_generator is not None:
        maps = {f"feature_map_{number}": features for number, features in enumerate(feature_maps)}
        graphs[PROPOSALS] = Graph(ProposalGraph(segmenter), maps, {name: (0, *plane) for name in maps})
    if segmenter.adapter is not None:
        masks = torch.zeros(7, 4 * dense.shape[2] + 1, 4 * dense.shape[3] + 2)
        graphs["adapter"] = Graph(
            AdapterGraph(segmenter),
            {"projected_features": projected, "dense_features": dense, "masks": masks},
            {"projected_features": plane, "dense_features": plane, "masks": (0, 1, 2)},
        )
    if segmenter.text_transfer is not None:
        graphs["text_transfer"] = Graph(
            TextTransferGraph(segmenter),
            {"text_embeds": torch.ones(6, embed_dim), "projected_features": projected},
            {"text_embeds": (0,), "projected_features": plane},
        )
    return graphs


def write_graph(name: str, graph: Graph, folder: Path) -> str:
    """Write a graph as ONNX.

    The text tower is Transformers' own, and so is its exporter. The other graphs are traced: Transformers' exporter
    (5.23) takes minutes for the mask generator's free sizes, and more for each of its layers.

    Returns:
        Its file's name.

    Raises:
        ExportError: if it cannot be traced.
    """
    import onnx

    path = folder / f"{name}.onnx"
    module = graph.module.eval()
    try:
        with _quiet(), torch.no_grad():
            if name == "texts":
                _write_by_transformers(module, graph, path)
            else:
                _write_by_tracing(module, graph, path)
    except Exception as error:  # PyTorch, onnxscript and Transformers have no common error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"The graph {name!r} of this model cannot be exported with free sizes: {reason}") from error
    if sum(parameter.nbytes for parameter in module.parameters()) > _LARGEST_INSIDE and path.stat().st_size > (
        _LARGEST_INSIDE
    ):
        whole = onnx.load(path)
        onnx.save(whole, path, save_as_external_data=True, location=f"{path.name}.data")
    return path.name


def _write_by_transformers(module: torch.nn.Module, graph: Graph, path: Path) -> None:
    import onnx_ir
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    shapes = {key: {dimension: Dim.DYNAMIC for dimension in graph.free.get(key, ())} for key in graph.inputs}
    exported = OnnxExporter().export(module, dict(graph.inputs), OnnxConfig(dynamic_shapes=shapes, opset_version=OPSET))
    onnx_ir.save(exported.program, path)


def _write_by_tracing(module: torch.nn.Module, graph: Graph, path: Path) -> None:
    inputs, outputs = list(graph.inputs), list(module(**graph.inputs))
    with sizes_left_free():
        torch.onnx.export(
            _Positional(module, inputs).eval(),  # it is put back into the mode that it had, and its parts with it
            tuple(graph.inputs.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={
                key: {dimension: f"{key}_{dimension}" for dimension in free} for key, free in graph.free.items()
            },
        )


class _Positional(torch.nn.Module):
    """A module of named tensors, called with tensors in an order."""

    def __init__(self, module: torch.nn.Module, names: list[str]):
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(**dict(zip(self.names, values, strict=True))).values())


def as_openvino(path: Path, dtype: ExportedType) -> str:
    """Convert an ONNX file in its place; what computes in bf16 keeps its weights in 16 bits."""
    import openvino

    converted = openvino.Core().read_model(path)
    is_half = path.stem not in IN_FLOAT32 and (dtype == "bfloat16" or (dtype == "int8" and path.stem == "texts"))
    openvino.save_model(converted, path.with_suffix(".xml"), compress_to_fp16=is_half)
    del converted
    path.unlink()
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return path.with_suffix(".xml").name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own progress and advice."""
    import contextlib
    import io
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "transformers.exporters", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = [
    "EXPORTED_TYPES",
    "FORMATS",
    "ExportError",
    "Graph",
    "as_openvino",
    "export_model",
    "graphs_of",
    "write_graph",
]
