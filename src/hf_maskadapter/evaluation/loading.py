"""A model from a folder or the Hub, ready to be measured."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, AutoProcessor

from ..data.options import with_named
from ..loading import keep_vocabularies
from ..model.configuration_maskadapter import MaskAdapterConfig
from ..model.cpu_mlp import use_int8
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..model.vocabulary import Vocabulary
from .options import PredictorOptions
from .predictors import MaskAdapterPredictor, Method, Predictor
from .universal_predictor import UniversalPredictor


def load_predictor(
    model: str, vocabulary: Vocabulary, options: PredictorOptions | None = None, **named: Any
) -> Predictor:
    """A model from a folder or the Hub, ready to be evaluated: one of this package or any universal segmenter.

    Args:
        model: Folder or Hub id.
        vocabulary: The data set's classes.
        options: What is measured and how it predicts, see also [`MaskAdapterPredictor`] and [`UniversalPredictor`].
        **named: Fields of `options` by their names, such as ``tasks=("panoptic",)``.

    Raises:
        ValueError: The model cannot be loaded, or options do not apply to it.
        OSError: The model cannot be loaded.
        TypeError: There is no option of a name.
    """
    options = with_named(PredictorOptions, options, named)
    where = {} if options.revision is None else {"revision": options.revision}
    methods = [method if isinstance(method, Method) else Method.parse(method) for method in options.methods]
    tasks = options.tasks or ("semantic",)
    config = AutoConfig.from_pretrained(model, **where)
    int8 = options.dtype == "int8"
    dtype = torch.float32 if int8 else getattr(torch, options.dtype)
    if isinstance(config, MaskAdapterConfig):
        if options.text_transfer_panoptic is not None:
            config.text_transfer_panoptic = options.text_transfer_panoptic
        segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(model, config=config, dtype=dtype, **where)
        if int8:
            use_int8(segmenter)
        processor = MaskAdapterProcessor.from_pretrained(model, **where)
        keep_vocabularies(segmenter)
        if options.shortest_edge is not None or options.longest_edge is not None:
            processor.image_processor.size = {
                "shortest_edge": options.shortest_edge or processor.image_processor.size["shortest_edge"],
                "longest_edge": options.longest_edge or processor.image_processor.size["longest_edge"],
            }
        return MaskAdapterPredictor(
            segmenter,
            processor,
            vocabulary,
            tasks=tasks,
            methods=methods,
            masks=options.masks,
            resize_scores=bool(options.resize_scores),
            object_threshold=options.object_threshold,
            overlap_threshold=options.overlap_threshold,
        )
    if methods or options.masks != "generator":
        raise ValueError(
            f"{model} is a {config.model_type}, whose masks cannot be classified otherwise: leave out mask_embedding "
            "and masks."
        )
    if int8:
        raise ValueError(f"{model} is a {config.model_type}, which does not compute in int8: choose another dtype.")
    universal = AutoModelForUniversalSegmentation.from_pretrained(model, dtype=dtype, **where)
    loader = AutoProcessor if config.model_type == "oneformer" else AutoImageProcessor
    return UniversalPredictor(
        universal,
        loader.from_pretrained(model, **where),
        vocabulary,
        tasks=tasks,
        label_matching=options.label_matching,
    )


__all__ = ["load_predictor"]
