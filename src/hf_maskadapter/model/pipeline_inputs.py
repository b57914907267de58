"""What a segmentation pipeline is called with, read and checked: the same for every engine, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .mask_collections import read_masks
from .pictures import read_picture
from .segments import TASKS
from .vocabulary import Vocabulary, label_sets

#: Least score of an instance unless the call says otherwise. Without one, `instance_top_k` would always be returned.
INSTANCE_THRESHOLD = 0.1

_IDLE = {"semantic": ("threshold", "overlap_mask_area_threshold"), "instance": ("overlap_mask_area_threshold",)}


@dataclass(frozen=True)
class Request:
    """One picture, what to look for in it, and the caller's own masks, `(num_masks, height, width)`, if any."""

    picture: Image.Image
    vocabulary: Vocabulary
    masks: np.ndarray | None


def read_request(inputs: Any, vocabulary: Vocabulary | None, timeout: float | None) -> Request:
    """Read one item that a pipeline is called with.

    Args:
        inputs: a picture in any form; or a dict with it as `image`, and `candidate_labels` and `masks` of its own.
        vocabulary: for pictures without labels of their own.
        timeout: seconds to wait for a picture from the web.

    Raises:
        ValueError: if there are no labels, or the picture or its masks cannot be read.
        OSError: if there is no such file, or an address cannot be fetched.
    """
    image, masks = inputs, None
    if isinstance(inputs, Mapping):
        if "image" not in inputs:
            raise ValueError(f'A dict must hold a picture as "image", this one has the keys {sorted(inputs)}.')
        image, masks = inputs["image"], inputs.get("masks")
        if inputs.get("candidate_labels") is not None:
            vocabulary = parse_candidate_labels(inputs["candidate_labels"])
    if vocabulary is None:
        raise ValueError('Say what to look for, for example candidate_labels=["cat", "sofa", "wall"].')
    picture = read_picture(image, timeout=timeout)
    if masks is not None:
        masks = read_masks(masks, (picture.height, picture.width), may_be_empty=True).masks
    return Request(picture, vocabulary, masks)


def parse_candidate_labels(candidate_labels: Any) -> Vocabulary:
    """Candidate labels in any form to a vocabulary.

    Unlike [`Vocabulary.parse`], a string is never taken for a file's path: labels often come from strangers.

    Raises:
        ValueError: if there are none, or one is empty or given twice.
    """
    if isinstance(candidate_labels, str):
        if candidate_labels in label_sets():
            return Vocabulary.from_label_set(candidate_labels)
        return Vocabulary.from_list([[name] for name in candidate_labels.split(",") if name.strip()])
    return Vocabulary.parse(candidate_labels)


def require_subtask(subtask: str | None) -> None:
    """Refuse a kind of result that there is not.

    Raises:
        ValueError: with the kinds that there are.
    """
    if subtask is not None and subtask not in TASKS:
        raise ValueError(f"subtask must be one of {', '.join(TASKS)}, got {subtask!r}.")


def refuse_idle_thresholds(subtask: str | None, arguments: Mapping[str, Any]) -> None:
    """Refuse thresholds that would have no effect.

    Args:
        subtask: the kind of result; `None` for semantic.
        arguments: of the call.

    Raises:
        ValueError: if there is one.
    """
    subtask = subtask or "semantic"
    for name in _IDLE.get(subtask, ()):
        if arguments.get(name) is not None:
            raise ValueError(f"{name} has no effect on {subtask} results: leave it out, or choose another subtask.")


__all__ = [
    "INSTANCE_THRESHOLD",
    "Request",
    "parse_candidate_labels",
    "read_request",
    "refuse_idle_thresholds",
    "require_subtask",
]
