"""The `zero-shot-image-segmentation` pipeline: pictures and any labels in, named masks out."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForUniversalSegmentation
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .cpu_mlp import use_int8
from .modeling_maskadapter import MaskAdapterSegmentationOutput
from .modeling_text_classifier import EncodedVocabulary
from .pipeline_inputs import (
    INSTANCE_THRESHOLD,
    parse_candidate_labels,
    read_request,
    refuse_idle_thresholds,
    require_subtask,
)
from .post_processing_maskadapter import Task, segment
from .prefetching import Prefetched, prefetching_pays
from .segments import Segment, Segments
from .vocabulary import Vocabulary

TASK = "zero-shot-image-segmentation"
_MAX_CACHED_VOCABULARIES = 16


class ZeroShotImageSegmentationPipeline(Pipeline):
    """Open-vocabulary segmentation: pictures and candidate labels in, masks with labels out.

    The model is a [`MaskAdapterForOpenVocabularySegmentation`]. All labels are found in one pass over the picture, and
    a vocabulary is encoded once, however many pictures it is used for.

    Example:
    ```python
    from transformers import pipeline

    segmenter = pipeline("zero-shot-image-segmentation", model=name)
    for segment in segmenter("street.jpg", candidate_labels=["car", "road", "sky"]):
        print(segment["label"], segment["mask"].size)
    ```

    Pictures of different sizes in one batch are padded to a common size, and what a model sees of padding changes
    results slightly: with `batch_size=1`, the default, each picture's result depends on that picture alone.

    On a CPU, `dtype=torch.bfloat16` or `int8=True` (see [`use_int8`]) takes less time than fp32 and is less accurate.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, int8: bool = False, **kwargs: Any):
        kwargs.pop("local_files_only", None)  # `pipeline` passes its own arguments on
        super().__init__(*args, **kwargs)
        if int8:
            use_int8(self.model)
        if self.processor is None:
            raise ValueError(
                "The pipeline needs a processor: pipeline(..., processor=MaskAdapterProcessor(image_processor, "
                "tokenizer))."
            )
        if not hasattr(self.model, "encode_vocabulary"):
            raise ValueError(
                f"{type(self.model).__name__} cannot segment by labels; {TASK} needs a "
                "MaskAdapterForOpenVocabularySegmentation."
            )
        self.max_cached_vocabularies = _MAX_CACHED_VOCABULARIES
        """How many vocabularies are kept encoded, the last used ones."""
        self._encoded: OrderedDict[Vocabulary, EncodedVocabulary] = OrderedDict()

    def __call__(self, images: Any, candidate_labels: Any = None, **kwargs: Any) -> Any:
        """Segment one picture or many.

        Args:
            images:
                A picture: a PIL image, a file's path, an address on the web, an array or a tensor. Or a dict
                `{"image": picture, "candidate_labels": labels}`, for labels of its own, and for masks of its own with
                `"masks": masks` in any form that [`read_masks`] reads: then no masks are generated, and each of these
                gets a label. Or a list, generator or data set of these; for a generator or data set results come one by
                one, as they are asked for.
            candidate_labels:
                What to look for: a list of names (an entry may hold synonyms, `"cat, kitten"` or `["cat", "kitten"]`),
                a string of names separated by commas, the name of a built-in label set, a dict, a file as a `Path`, or
                a [`Vocabulary`]. It applies to every picture that does not bring its own.
            subtask (`"semantic"`, `"panoptic"` or `"instance"`, defaults to `"semantic"`):
                One mask for each label; each pixel to one segment, things apart and stuff merged; or possibly
                overlapping objects. A label counts as a thing unless the vocabulary says that it is stuff.
            threshold (`float`, *optional*):
                Score that a panoptic or instance segment must exceed; by default the model's `object_threshold` for
                panoptic results, 0.1 for instances.
            overlap_mask_area_threshold (`float`, *optional*):
                A panoptic segment of which less than this share stays visible is left out; by default the model's.
            mask_embedding (`"adapter"`, `"pooling"` or `"crop"`, *optional*), mask_pooling (*optional*):
                How masks are classified, instead of the model's configuration.
            batch_size (`int`, defaults to 1), num_workers (`int`, defaults to 0):
                Pictures at a time, and processes that prepare them.
            return_segments (`bool`, defaults to `False`):
                Whether to return [`Segments`], which also hold embeddings, areas, boxes and maps and show themselves in
                a notebook, instead of lists of dicts.
            on_features (callable, *optional*):
                Is called with CLIP's dense features of each picture, `(feature_dim, height, width)` without padding,
                before it is segmented: for what else one wants to know of a picture without computing them again.
            timeout (`float`, *optional*):
                Seconds to wait for a picture from the web.
            kwargs:
                All of the above but `images` and `candidate_labels`.

        Returns:
            For each picture a list of segments, dicts with `label` (`str`), `score` (`float`, `None` if semantic) and
            `mask` (PIL image of mode "L" with the picture's size, 255 inside, 0 outside), instances with the best one
            first; or [`Segments`]. For masks of one's own, one segment for each, in their order; `subtask` and
            thresholds have no effect on them.

        Raises:
            ValueError: if there are no labels, an argument is not one of those above, or has no effect: thresholds on
                semantic results, `overlap_mask_area_threshold` on instances.
        """
        refuse_idle_thresholds(kwargs.get("subtask") or self._postprocess_params.get("subtask"), kwargs)
        if candidate_labels is not None:
            kwargs["candidate_labels"] = candidate_labels
        if isinstance(images, tuple):
            images = list(images)
        elif isinstance(images, Iterator):
            images = (image for image in images)  # Transformers streams generators only
        if isinstance(images, list) and not images:
            return []
        return super().__call__(images, **kwargs)

    def _sanitize_parameters(
        self,
        candidate_labels: Any = None,
        subtask: Task | None = None,
        threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        mask_embedding: str | None = None,
        mask_pooling: str | None = None,
        timeout: float | None = None,
        return_segments: bool | None = None,
        on_features: Callable[[Tensor], None] | None = None,
    ) -> tuple[dict, dict, dict]:
        require_subtask(subtask)
        preprocess = {
            "vocabulary": None if candidate_labels is None else parse_candidate_labels(candidate_labels),
            "timeout": timeout,
        }
        forward = {
            "mask_embedding": mask_embedding,
            "mask_pooling": mask_pooling,
            "skip_void_masks": None if subtask is None else subtask == "panoptic",
            "on_features": on_features,
        }
        postprocess = {
            "subtask": subtask,
            "threshold": threshold,
            "overlap_mask_area_threshold": overlap_mask_area_threshold,
            "return_segments": return_segments,
        }
        return _given(preprocess), _given(forward), _given(postprocess)

    def segment_pictures(
        self,
        pictures: Sequence[Any],
        candidate_labels: Any,
        *,
        batch_size: int = 1,
        computing: AbstractContextManager[Any] | None = None,
        **options: Any,
    ) -> list[Segments]:
        """Segment pictures that lie in memory, with the results of a call, but without its loops.

        Only pictures whose prepared sizes are equal pass the model together, so that none is padded for another's sake.
        Several threads may call this at once: each prepares, computes and post-processes its own pictures.

        Args:
            pictures: as a call takes them.
            candidate_labels: likewise.
            batch_size: most pictures in one pass.
            computing: entered while the model computes: a lock, where only one thread at a time may use it.
            **options: further arguments of a call, but for those of its loops.

        Returns:
            A result for each picture, in order.

        Raises:
            ValueError: as a call.
        """
        refuse_idle_thresholds(options.get("subtask") or self._postprocess_params.get("subtask"), options)
        given = self._sanitize_parameters(candidate_labels=candidate_labels, return_segments=True, **options)
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        preparing, running, finishing = ({**usual, **own} for usual, own in zip(defaults, given, strict=True))
        prepared = [self.preprocess(picture, **preparing) for picture in pictures]
        of_size: dict[Any, list[int]] = {}
        for place, item in enumerate(prepared):
            of_size.setdefault(item["pixel_values"].shape, []).append(place)
        found: dict[int, Any] = {}
        for places in of_size.values():
            for first in range(0, len(places), batch_size):
                together = places[first : first + batch_size]
                with nullcontext() if computing is None else computing:
                    outputs = self.forward(_collate([prepared[place] for place in together]), **running)
                of_pictures = zip(*(outputs[name] for name in ("results", "vocabulary", "target_size")), strict=True)
                for place, (result, vocabulary, size) in zip(together, of_pictures, strict=True):
                    one = {"results": result, "vocabulary": vocabulary, "target_size": size}
                    found[place] = self.postprocess(one, **finishing)
        return [found[place] for place in range(len(prepared))]

    def preprocess(self, inputs: Any, vocabulary: Vocabulary | None = None, timeout: float | None = None) -> dict:
        """One picture to a batch of one."""
        request = read_request(inputs, vocabulary, timeout)
        picture, own_masks, vocabulary = request.picture, request.masks, request.vocabulary
        of_picture = {} if own_masks is None else {"masks": [own_masks]}
        features = self.processor(images=[picture], **of_picture, return_tensors="pt")
        return {
            "pixel_values": features["pixel_values"].to(self.dtype),
            "pixel_mask": features["pixel_mask"],
            "target_size": [tuple(features["original_sizes"][0].tolist())],
            "vocabulary": [vocabulary],
            "own_masks": [own_masks],
            "masks": [features["masks"][0] if own_masks is not None else None],
        }

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict,
        forward_params: dict,
        postprocess_params: dict,
    ) -> PipelineIterator:
        """Transformers' chain of iterators, with a collation that pads pictures to a common size."""
        sized = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")
        source = PipelineDataset if sized else PipelineIterator
        loader = DataLoader(
            source(inputs, self.preprocess, preprocess_params),
            num_workers=num_workers if sized else min(num_workers, 1),
            batch_size=batch_size,
            collate_fn=_collate,
        )
        source_of_batches = Prefetched(loader) if sized and prefetching_pays(self.device) else loader
        batches = PipelineIterator(source_of_batches, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(batches, self.postprocess, postprocess_params)

    def encode_vocabulary(self, vocabulary: Vocabulary) -> EncodedVocabulary:
        """Encode a vocabulary, or look it up if it was encoded lately. A call of the pipeline does it by itself.

        Raises:
            ValueError: if a name is longer than the text tower reads.
        """
        if vocabulary not in self._encoded:
            while len(self._encoded) >= self.max_cached_vocabularies:
                self._encoded.popitem(last=False)
            self._encoded[vocabulary] = self.model.encode_vocabulary(vocabulary, self.processor)
        self._encoded.move_to_end(vocabulary)
        return self._encoded[vocabulary]

    def _forward(
        self, model_inputs: dict, on_features: Callable[[Tensor], None] | None = None, **parameters: Any
    ) -> dict:
        """One pass for each vocabulary of the batch, usually one, over the pictures that it is wanted for.

        Pictures that bring masks pass one by one: their numbers of masks differ.
        """
        vocabularies = model_inputs["vocabulary"]
        results: list[dict[str, Any]] = [{} for _ in vocabularies]
        groups: dict[Any, list[int]] = {}
        for index, (vocabulary, masks) in enumerate(zip(vocabularies, model_inputs["masks"], strict=True)):
            groups.setdefault(vocabulary if masks is None else index, []).append(index)
        for indices in groups.values():
            masks = model_inputs["masks"][indices[0]]
            pixel_values, pixel_mask = model_inputs["pixel_values"][indices], model_inputs["pixel_mask"][indices]
            feature_maps = self.model.clip.get_feature_maps(pixel_values)
            if on_features is not None:
                for features, inside in zip(feature_maps[-1], pixel_mask, strict=True):
                    on_features(_without_padding(features, inside))
            outputs = self.model(
                pixel_values=pixel_values,
                pixel_mask=pixel_mask,
                feature_maps=feature_maps,
                vocabulary=self.encode_vocabulary(vocabularies[indices[0]]),
                masks=None if masks is None else masks[None],
                **parameters,
            )
            for position, index in enumerate(indices):
                names = (
                    "class_queries_logits",
                    "masks_queries_logits",
                    "valid_masks",
                    "mask_embeddings",
                    "image_sizes",
                )
                given = {name: outputs[name] for name in names if outputs.get(name) is not None}
                results[index] = {name: values[position : position + 1] for name, values in given.items()}
                results[index]["padded_size"] = outputs.padded_size
                results[index]["own_masks"] = model_inputs["own_masks"][index]
        # One entry for each picture, the results first: Transformers takes the batch size from the first value.
        return {"results": results, "vocabulary": vocabularies, "target_size": model_inputs["target_size"]}

    def postprocess(
        self,
        model_outputs: dict,
        subtask: Task = "semantic",
        threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        return_segments: bool = False,
    ) -> list[dict[str, Any]] | Segments:
        """One picture's outputs to its segments."""
        result, vocabulary, target_size = (
            _only(model_outputs[name]) for name in ("results", "vocabulary", "target_size")
        )
        own_masks = result.pop("own_masks", None)
        outputs = MaskAdapterSegmentationOutput(**result)
        if own_masks is not None:
            scores, labels = result["class_queries_logits"][0, :, :-1].float().softmax(dim=-1).max(dim=-1)
            embeddings = F.normalize(result["mask_embeddings"][0].float(), dim=-1).numpy()
            of_masks = zip(labels.tolist(), own_masks, scores.tolist(), embeddings, strict=True)
            found = [
                Segment.of_class(vocabulary, label, mask, score=score, embedding=embedding)
                for label, mask, score, embedding in of_masks
            ]
            segments = Segments(found, target_size, vocabulary)
            return segments if return_segments else segments.to_pipeline()
        config = self.model.config
        options: dict[str, Any] = {}
        if subtask == "panoptic":
            options["threshold"] = config.object_threshold if threshold is None else threshold
            options["overlap_mask_area_threshold"] = (
                config.overlap_threshold if overlap_mask_area_threshold is None else overlap_mask_area_threshold
            )
        elif subtask == "instance":
            options["threshold"] = INSTANCE_THRESHOLD if threshold is None else threshold
            options["top_k"] = config.instance_top_k
        (segments,) = segment(outputs, subtask, vocabulary, [target_size], **options)
        if return_segments:
            return segments
        return (
            replace(segments, segments=segments.best_first()).to_pipeline()
            if subtask == "instance"
            else segments.to_pipeline()
        )

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model and processor, so that `pipeline(..., model=save_directory)` loads both.

        Args:
            save_directory: the folder, created if need be.
            **kwargs: passed to the model's and the processor's `save_pretrained`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _without_padding(features: Tensor, inside: Tensor) -> Tensor:
    """The cells of a picture's features `(feature_dim, height, width)` that hold pixels of it.

    Args:
        features: of the padded picture.
        inside: 1 for pixels of the picture, `(padded_height, padded_width)`.
    """
    cells = []
    for axis, of_pixels in ((1, inside.any(dim=1)), (2, inside.any(dim=0))):
        side = features.shape[axis]
        cells.append(-(-int(of_pixels.sum()) * side // len(of_pixels)))
    return features[:, : cells[0], : cells[1]]


def _collate(items: list[dict]) -> dict:
    """Join batches of one; pictures are padded with zeros at the bottom and right to the largest height and width."""
    lists = ("vocabulary", "target_size", "own_masks", "masks")
    batch = {name: [value for item in items for value in item[name]] for name in lists}
    height, width = (max(item["pixel_values"].shape[axis] for item in items) for axis in (-2, -1))

    def padded(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]))

    for name in ("pixel_values", "pixel_mask"):
        batch[name] = torch.cat([padded(item[name]) for item in items])
    batch["masks"] = [None if masks is None else padded(masks) for masks in batch["masks"]]
    return batch


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _only(value: Any) -> Any:
    """The entry of a batch of one; Transformers unpacks only larger batches."""
    return value[0] if isinstance(value, list) else value


def register_pipeline() -> None:
    """Make `pipeline("zero-shot-image-segmentation", ...)` known to Transformers; a second call changes nothing."""
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ZeroShotImageSegmentationPipeline,
            pt_model=AutoModelForUniversalSegmentation,
            type="multimodal",
        )


register_pipeline()


__all__ = ["INSTANCE_THRESHOLD", "ZeroShotImageSegmentationPipeline", "parse_candidate_labels", "register_pipeline"]
