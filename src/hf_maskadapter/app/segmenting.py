"""One picture segmented, with what there is to tell about each segment, and two methods compared.

All is computed in one pass; what is kept for later questions is small, whatever the picture's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..exchange.plain import in_order
from ..model.modeling_maskadapter import MaskAdapterSegmentationOutput
from ..model.post_processing_maskadapter import Task
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from ..visualization import activation_weights
from .models import AppModel

Method = Literal["adapter", "pooling", "crop"]
METHODS: tuple[Method, ...] = ("adapter", "pooling", "crop")

UNKNOWN_PICTURE = (
    "This does not look like the drawn scenes of coloured, textured shapes that the small embedded model knows, so its "
    "labels mean nothing here. For photographs choose a released model, under Model and method."
)

_MOST_WORDS = 6
_ALIKE = 1 - 1e-5  # cosine of a mask's embedding with itself, after rounding


@dataclass(frozen=True)
class Wish:
    """What is asked for of a picture.

    Args:
        picture: as a viewer shows it.
        vocabulary: what to look for.
        task: what kind of result.
        method: how masks are classified; `None`: as the model's configuration says.
        threshold: least score of panoptic and instance segments; 0: the model's own. Of no effect on semantic results.
        file_name: what results call the picture.
    """

    picture: Image.Image
    vocabulary: Vocabulary
    task: Task = "semantic"
    method: Method | None = None
    threshold: float = 0.0
    file_name: str = "picture.png"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a segment has its label, of the mask that decided it.

    Args:
        label: the segment's.
        score: the segment's own; of a semantic segment, which has none, the label's probability for that mask.
        is_own_score: whether the segment has a score of its own.
        share: of the picture's pixels, 0 to 1.
        words: labels and their probabilities for that mask, the best first.
        void: probability that the mask is nothing of these.
        weights: how much each place counts, `(map_height, map_width)` over the picture: where the adapter looks, or,
            for the other methods, the mask itself.
    """

    label: str
    score: float
    is_own_score: bool
    share: float
    words: tuple[tuple[str, float], ...]
    void: float
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class SegmentedPicture:
    """A picture's segments and why they are what they are.

    Args:
        segments: the result.
        explanations: of each segment, in the order of [`hf_maskadapter.exchange.plain.in_order`].
        method: how masks were classified.
        warning: what to tell the user about it, or nothing.
    """

    segments: Segments
    explanations: tuple[Explanation, ...]
    method: Method
    warning: str = ""


@dataclass(frozen=True, eq=False)
class Difference:
    """A segment of the adapter's whose pixels pooling mostly calls something else.

    Args:
        adapter: the adapter's label.
        pooling: pooling's label, or `None` where pooling finds nothing.
        share: of the segment's visible pixels that pooling calls so, 0 to 1.
        area: the segment's visible pixels.
    """

    adapter: str
    pooling: str | None
    share: float
    area: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """What mask pooling and the adapter make of one picture, with the same masks.

    Args:
        pooling: pooling's result.
        adapter: the adapter's result.
        differs: `(height, width)` bool: pixels that the two call differently.
        differences: where that is most of a segment, the largest first.
        warning: what to tell the user about it, or nothing.
    """

    pooling: Segments
    adapter: Segments
    differs: np.ndarray
    differences: tuple[Difference, ...]
    warning: str = ""


@dataclass(frozen=True, eq=False)
class _Pass:
    """One method's result and what it was made of."""

    segments: Segments
    outputs: MaskAdapterSegmentationOutput


def segment_picture(model: AppModel, wish: Wish) -> SegmentedPicture:
    """Segment a picture.

    Raises:
        ValueError: if the model has no such method, or a name is too long for it.
    """
    method = wish.method or model.pipeline.model.config.mask_embedding
    results, warning = _run(model, wish, [method])
    result = results[method]
    return SegmentedPicture(result.segments, tuple(_explain(result)), method, warning)


def compare_methods(model: AppModel, wish: Wish) -> Comparison:
    """Segment a picture by mask pooling and by the adapter. Features and masks are computed once.

    Raises:
        ValueError: as [`segment_picture`].
    """
    results, warning = _run(model, wish, ["pooling", "adapter"])
    pooling, adapter = results["pooling"].segments, results["adapter"].segments
    nothing = len(wish.vocabulary)
    theirs, ours = pooling.label_map(nothing), adapter.label_map(nothing)
    differences = []
    places = adapter.segment_map()
    for number, segment in enumerate(adapter, start=1):
        labels = theirs[places == number]
        if not len(labels):  # it lies wholly under others
            continue
        counts = np.bincount(labels, minlength=nothing + 1)
        most = int(counts.argmax())
        if most != segment.class_id:
            name = None if most == nothing else wish.vocabulary.names[most]
            differences.append(Difference(segment.label, name, float(counts[most] / len(labels)), len(labels)))
    differences.sort(key=lambda difference: -difference.area)
    return Comparison(pooling, adapter, theirs != ours, tuple(differences), warning)


@torch.no_grad()
def _run(model: AppModel, wish: Wish, methods: Sequence[Method]) -> tuple[dict[Method, _Pass], str]:
    pipeline, segmenter = model.pipeline, model.pipeline.model
    if "adapter" in methods and segmenter.adapter is None:
        raise ValueError(f"The model {model.name} has no adapter: choose pooling or crop.")
    vocabulary = pipeline.encode_vocabulary(wish.vocabulary)
    inputs = pipeline.preprocess(wish.picture, wish.vocabulary)
    pixel_values, pixel_mask = (inputs[name].to(pipeline.device) for name in ("pixel_values", "pixel_mask"))
    feature_maps = segmenter.clip.get_feature_maps(pixel_values)
    unknown = model.known_world is not None and not model.known_world.holds(feature_maps[-1])[0]
    generated = segmenter.generate_masks(
        feature_maps, pixel_values, pixel_mask, vocabulary, segmenter.get_void_embeds()
    )
    threshold = None if wish.task == "semantic" or wish.threshold == 0 else wish.threshold
    results = {}
    for method in methods:
        outputs = segmenter(
            pixel_values,
            vocabulary,
            pixel_mask=pixel_mask,
            mask_embedding=method,
            output_semantic_activation_maps=method == "adapter",
            skip_void_masks=wish.task == "panoptic",
            feature_maps=feature_maps,
            generator_output=generated,
            return_dict=True,
        )
        outputs = _on_cpu(outputs)
        segments = pipeline.postprocess(
            {"results": [_for_postprocessing(outputs)], "vocabulary": [wish.vocabulary]}
            | {"target_size": [(wish.picture.height, wish.picture.width)]},
            subtask=wish.task,
            threshold=threshold,
            return_segments=True,
        )
        segments = Segments(segments.segments, segments.size, wish.vocabulary, wish.task, wish.file_name)
        results[method] = _Pass(segments, outputs)
    return results, UNKNOWN_PICTURE if unknown else ""


def _on_cpu(outputs: MaskAdapterSegmentationOutput) -> MaskAdapterSegmentationOutput:
    return MaskAdapterSegmentationOutput(
        **{name: value.cpu() if isinstance(value, Tensor) else value for name, value in outputs.items()}
    )


def _for_postprocessing(outputs: MaskAdapterSegmentationOutput) -> dict[str, Any]:
    names = ("class_queries_logits", "masks_queries_logits", "valid_masks", "mask_embeddings")
    return {name: outputs[name] for name in (*names, "image_sizes", "padded_size") if outputs.get(name) is not None}


def _explain(result: _Pass) -> list[Explanation]:
    segments, outputs = result.segments, result.outputs
    probabilities = outputs["class_queries_logits"][0].float().softmax(dim=-1)
    names = segments.vocabulary.names
    explanations = []
    for segment in in_order(segments):
        row = _deciding_mask(segment, outputs, probabilities)
        best = probabilities[row, :-1].topk(min(_MOST_WORDS, len(names)))
        words = {names[index]: value for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)}
        own = probabilities[row, segment.class_id].item()
        words.setdefault(segment.label, own)
        explanations.append(
            Explanation(
                segment.label,
                own if segment.score is None else segment.score,
                segment.score is not None,
                segment.area / (segments.height * segments.width),
                tuple(words.items()),
                probabilities[row, -1].item(),
                _weights(segment, outputs, row),
            )
        )
    return explanations


def _deciding_mask(segment: Segment, outputs: MaskAdapterSegmentationOutput, probabilities: Tensor) -> int:
    """The place of the mask that a segment's label and score are of.

    A panoptic or instance segment brings that mask's embedding along. A semantic segment is made of all masks: then it
    is the one that adds most to the label's score on the segment's pixels.
    """
    of_label = probabilities[:, segment.class_id]
    if segment.embedding is not None:
        cosines = F.normalize(outputs["mask_embeddings"][0].float(), dim=-1) @ torch.from_numpy(segment.embedding)
        alike = cosines >= max(_ALIKE * cosines.max().item(), -1.0)
        return int(torch.where(alike, of_label, -1.0).argmax())
    masks = outputs["masks_queries_logits"][0].float().sigmoid()
    inside = _at_size_of(masks, segment.mask, outputs)
    return int((of_label * (masks * inside).sum(dim=(-2, -1))).argmax())


def _at_size_of(masks: Tensor, mask: np.ndarray, outputs: MaskAdapterSegmentationOutput) -> Tensor:
    """A segment's mask at the resolution of the generator's masks, which cover the padded picture."""
    height, width = masks.shape[-2:]
    shares = [outputs["image_sizes"][0][axis].item() / outputs["padded_size"][axis].item() for axis in (0, 1)]
    rows, columns = max(1, round(height * shares[0])), max(1, round(width * shares[1]))
    resized = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(rows, columns), mode="area")[0, 0]
    return F.pad(resized, (0, width - columns, 0, height - rows))


def _weights(segment: Segment, outputs: MaskAdapterSegmentationOutput, row: int) -> np.ndarray:
    maps = outputs.semantic_activation_maps
    if maps is not None:
        weights = activation_weights(
            maps[0, row], image_size=outputs["image_sizes"][0], padded_size=outputs["padded_size"]
        )
        return weights.astype(np.float32)
    small = Image.fromarray(segment.mask.astype(np.uint8) * 255)
    small.thumbnail((128, 128), Image.Resampling.BOX)
    return np.asarray(small).astype(np.float32) / 255


__all__ = [
    "METHODS",
    "UNKNOWN_PICTURE",
    "Comparison",
    "Difference",
    "Explanation",
    "Method",
    "SegmentedPicture",
    "Wish",
    "compare_methods",
    "segment_picture",
]
