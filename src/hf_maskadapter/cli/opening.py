"""Open the model that the options name."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

from ..export.manifest import is_exported
from ..loading import MINIATURE, find_model, keep_vocabularies
from .errors import UserError, one_line
from .options import ModelOptions


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Import and load without looking for garbage: what they make stays, and looking for it takes an eighth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@no_garbage_collection()
def load_segmenter(options: ModelOptions) -> Any:
    """The pipeline of the model that the options name.

    Raises:
        UserError: if there is no such device or model, or the model cannot do what is asked for.
    """
    if options.model is not None and is_exported(options.model):
        return _load_exported(options)
    silence_transformers()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoProcessor

    from ..hub.errors import hub_reason
    from ..model.cpu_mlp import use_int8, why_slow
    from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
    from ..model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline

    device = None
    if options.device is not None:
        try:
            device = torch.empty(0, device=options.device).device
        except (RuntimeError, AssertionError) as error:  # an unknown name, or PyTorch was built without it
            raise UserError(f"--device {options.device} cannot be used: {one_line(error)}") from error
    int8 = options.dtype == "int8"
    if int8:
        if device is not None and device.type != "cpu":
            raise UserError(f"--dtype int8 is for CPUs: choose bfloat16 on {options.device}, or --device cpu")
        device = torch.device("cpu")
    try:
        name = find_model(MINIATURE if options.model is None else options.model)
    except FileNotFoundError as error:  # this installation has no embedded one
        raise UserError(f"{error}, or name a --model") from error
    where = {"revision": options.revision or "main", "subfolder": options.subfolder}
    try:
        config = AutoConfig.from_pretrained(name, **where)
        if config.model_type != "maskadapter":
            raise UserError(f"{name} holds a model of type {config.model_type!r}, not a Mask-Adapter segmenter")
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(
            name, config=config, dtype="float32" if int8 else options.dtype, **where
        )
        if int8:
            use_int8(model)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the model {name} cannot be loaded: {hub_reason(error) or one_line(error)}") from error
    if options.mask_embedding == "adapter" and model.adapter is None:
        raise UserError(f"{name} has no adapter: choose --mask-embedding pooling or crop")
    if model.mask_generator is None:
        raise UserError(f"{name} has no mask generator; convert it again with --generator-from")
    try:
        processor = AutoProcessor.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the processor of {name} cannot be loaded; if the model was converted without a tokenizer, convert "
            f"it again with --tokenizer ({hub_reason(error) or one_line(error)})"
        ) from error
    if options.vocabulary_cache:
        keep_vocabularies(model)
    segmenter = ZeroShotImageSegmentationPipeline(model=model, processor=processor, device=device)
    slowness = why_slow(segmenter.model)
    if slowness is not None:
        print(f"warning: {slowness}", file=sys.stderr)
    return segmenter


def _load_exported(options: ModelOptions) -> Any:
    """An exported model, without PyTorch."""
    from ..export.segmenter import ExportedSegmenter

    name = options.model or ""
    if options.device not in (None, "cpu"):
        raise UserError(f"--device {options.device} cannot be used: exported models run on the cpu")
    if options.revision is not None or options.subfolder:
        raise UserError(f"{name} is an exported model, which has no --revision and no --subfolder")
    try:
        segmenter = ExportedSegmenter.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(one_line(error)) from error
    if options.dtype not in (None, "auto", segmenter.manifest.dtype):
        raise UserError(f"{name} was exported with --dtype {segmenter.manifest.dtype}: export it again for another")
    try:
        segmenter.check(options.mask_embedding)
    except ValueError as error:
        raise UserError(one_line(error)) from error
    return segmenter


def refuse_exported(model: str | None, what: str) -> None:
    """Tell who names an exported model where it cannot be used.

    Args:
        model: as the option has it.
        what: what needs another one, "the app".

    Raises:
        UserError: if it is an exported one.
    """
    if model is not None and is_exported(model):
        raise UserError(f"{model} is an exported model, which {what} does not run: name the one that it was made from")


def silence_transformers() -> None:
    """Keep Transformers' advice and progress bars out of the command's output, but not the bars of downloads."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    shows_downloads = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # those of the Hub, too
    if shows_downloads:
        enable_progress_bars()
