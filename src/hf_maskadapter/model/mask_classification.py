"""Masks from anywhere in, a label, a score and an embedding for each out; and regions found by words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .mask_collections import read_masks
from .modeling_text_classifier import EncodedVocabulary
from .pictures import read_picture
from .segments import Segment
from .vocabulary import Vocabulary

_MASKS_AT_A_TIME = 64


@dataclass
class ClassifiedMask:
    """One of the caller's masks with its class; [`Segments.from_classified_masks`] makes segments of several.

    Args:
        label: name of the class with the highest score; of an encoded vocabulary, which holds no names, its index as a
            text.
        label_id: its index in the vocabulary.
        score: its probability among the vocabulary's classes.
        embedding: normalised mask embedding in CLIP's space, `(embed_dim,)` floats on the CPU, to be kept and compared
            with texts or other masks.
        mask: `(height, width)`, booleans, or floats in [0, 1].
        id: the mask's value in the map that it comes from, or its place among the masks.
    """

    label: str
    label_id: int
    score: float
    embedding: Tensor
    mask: np.ndarray
    id: int


@torch.no_grad()
def classify_masks(
    model: Any,
    image: Any,
    masks: Any,
    vocabulary: Vocabulary | Sequence | dict | EncodedVocabulary,
    processor: Any,
    *,
    segments_info: Sequence[Mapping] | None = None,
    ignore_index: int | None = 0,
    mask_embedding: str | None = None,
    mask_pooling: str | None = None,
) -> list[ClassifiedMask]:
    """Give each of a picture's masks a class. No generator is run; the picture's features are computed once.

    Args:
        model: a `MaskAdapterForOpenVocabularySegmentation`.
        image: a picture, a path or an address.
        masks: the picture's masks in any form that [`read_masks`] reads: arrays, tensors, COCO's run-length encodings,
            polygons and annotations, label maps, panoptic PNGs, detections with a `.mask`.
        vocabulary: a [`Vocabulary`] or what [`Vocabulary.parse`] reads; or an encoded one, to encode it once only.
        processor: the model's processor.
        segments_info: as [`read_masks`], for maps.
        ignore_index: as [`read_masks`], for maps.
        mask_embedding: how masks are classified, instead of the model's configuration.
        mask_pooling: likewise.

    Returns:
        One entry for each mask, in the masks' order; none for the result of a model in which nothing was found.

    Raises:
        ValueError, TypeError, OSError: if picture, masks or vocabulary cannot be read, saying what was expected.
    """
    picture = read_picture(image)
    read = read_masks(masks, (picture.height, picture.width), segments_info, ignore_index)
    names: Sequence[str] | None = None
    if not isinstance(vocabulary, EncodedVocabulary):
        vocabulary = Vocabulary.parse(vocabulary)
        names = vocabulary.names
        vocabulary = model.encode_vocabulary(vocabulary, processor)
    if not len(read.masks):
        return []
    feature_maps = None
    probabilities, embeddings = [], []
    for start in range(0, len(read.masks), _MASKS_AT_A_TIME):
        chunk = read.masks[start : start + _MASKS_AT_A_TIME]
        inputs = processor(images=[picture], masks=[chunk], return_tensors="pt").to(model.device)
        pixel_values = inputs["pixel_values"].to(model.dtype)
        if feature_maps is None:
            feature_maps = model.clip.get_feature_maps(pixel_values)
        outputs = model(
            pixel_values,
            vocabulary,
            masks=inputs["masks"],
            pixel_mask=inputs["pixel_mask"],
            mask_embedding=mask_embedding,
            mask_pooling=mask_pooling,
            feature_maps=feature_maps,
            return_dict=True,
        )
        probabilities.append(outputs.class_queries_logits[0, :, :-1].float().softmax(dim=-1).cpu())
        embeddings.append(F.normalize(outputs.mask_embeddings[0].float(), dim=-1).cpu())
    scores, labels = torch.cat(probabilities).max(dim=-1)
    return [
        ClassifiedMask(str(label) if names is None else names[label], label, score, embedding, mask, mask_id)
        for label, score, embedding, mask, mask_id in zip(
            labels.tolist(), scores.tolist(), torch.cat(embeddings), read.masks, read.ids, strict=True
        )
    ]


@torch.no_grad()
def score_texts(
    model: Any,
    masks: Sequence[ClassifiedMask] | Sequence[Segment] | Tensor,
    texts: str | Sequence[str],
    processor: Callable,
    *,
    templates: Sequence[str] | None = None,
) -> Tensor:
    """Compare masks with texts, for example to find a region by words.

    Args:
        model: a `MaskAdapterForOpenVocabularySegmentation`.
        masks: classified masks or segments, of one or many pictures, or their embeddings `(num_masks, embed_dim)`.
        texts: a text or several; each is one description, also with commas in it.
        processor: the model's processor, or a tokenizer.
        templates: prompt templates with one `{}` each instead of the processor's.

    Returns:
        Cosines on the CPU, `(num_masks, num_texts)`.

    Raises:
        ValueError: if there is no mask or no text, a segment has no embedding, or a text is too long.
    """
    if not isinstance(masks, Tensor):
        if not masks:
            raise ValueError("There is no mask to compare with texts.")
        without = next((mask for mask in masks if mask.embedding is None), None)
        if without is not None:
            raise ValueError(
                f"{without!r} has no embedding: semantic segments have none, ask for panoptic or instance results."
            )
        masks = torch.stack([torch.as_tensor(mask.embedding) for mask in masks])
    texts = [texts] if isinstance(texts, str) else list(texts)
    unique = list(dict.fromkeys(texts))
    encoded = model.encode_vocabulary(Vocabulary.from_list([[text] for text in unique]), processor, templates)
    cosines = F.normalize(masks.float().cpu(), dim=-1) @ encoded.text_embeds.float().cpu().T
    return cosines[:, [unique.index(text) for text in texts]]


__all__ = ["ClassifiedMask", "classify_masks", "score_texts"]
