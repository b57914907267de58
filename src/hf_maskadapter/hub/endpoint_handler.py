"""Answers for Hugging Face Inference Endpoints: a picture and labels in, segments out.

This file is published beside a model as `handler.py`. The endpoint's server makes one `EndpointHandler` of the folder
and calls it for each request: https://huggingface.co/docs/inference-endpoints/engines/toolkit. All else that it needs
is the model's own code in the same folder.
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
import warnings
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from transformers import pipeline

TASK = "zero-shot-image-segmentation"
SUBTASKS = ("semantic", "panoptic", "instance")
METHODS = ("adapter", "pooling", "crop")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is decoded. Pillow reads more, some by calling other programs."""
MAX_PIXELS = 50_000_000
MAX_LABELS = 2000
_PARAMETERS = (
    "candidate_labels",
    "subtask",
    "task",
    "things",
    "threshold",
    "overlap_mask_area_threshold",
    "mask_embedding",
)


class EndpointHandler:
    """The model of a folder, asked by requests.

    Args:
        path: folder of a published model.
    """

    def __init__(self, path: str = "") -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.segmenter = pipeline(TASK, model=str(path) or ".", trust_remote_code=True, device=device)
        self._lock = threading.Lock()  # the server calls from several threads

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """Answer one request.

        Args:
            data: `inputs`, the picture: an image file in Base64, with or without `data:image/...;base64,`, or its
                bytes, or a PIL picture, which the server makes of a body of type `image/...`; or a dict of `image` and
                parameters. And `parameters`: `candidate_labels` (a list, or names separated by commas), `subtask` or
                `task` ("semantic", "panoptic" or "instance"), `things` (the countable labels), `threshold`,
                `overlap_mask_area_threshold`, `mask_embedding` ("adapter", "pooling" or "crop").

        Returns:
            For each segment `label`, `score` (None if semantic), `mask` (a PNG of the picture's size in Base64, 255
            inside and 0 outside), `box` (left, top, width and height in pixels) and `area` in pixels.

        Raises:
            ValueError: if something is missing or unusable; the server answers with the message.
        """
        picture, parameters = _split(data)
        unknown = sorted(set(parameters) - set(_PARAMETERS))
        if unknown:
            raise ValueError(f"parameters: {', '.join(unknown)} is unknown; there are {', '.join(_PARAMETERS)}.")
        options = _options(parameters)
        image = _open(picture)
        with self._lock:
            segments = self.segmenter(image, return_segments=True, **options)
        found = segments.best_first() if options["subtask"] == "instance" else list(segments)
        return [
            {
                "label": segment.label,
                "score": None if segment.score is None else float(segment.score),
                "mask": _as_png(segment.mask),
                "box": [int(number) for number in segment.box],
                "area": int(segment.area),
            }
            for segment in found
        ]


def _split(data: Any) -> tuple[Any, dict[str, Any]]:
    """The picture and the parameters of a request."""
    if not isinstance(data, dict) or "inputs" not in data:
        raise ValueError('The request must be an object with "inputs", the picture in Base64, and "parameters".')
    inputs, parameters = data["inputs"], data.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError('"parameters" must be an object, such as {"candidate_labels": ["cat", "sofa"]}.')
    if isinstance(inputs, dict):
        if "image" not in inputs:
            raise ValueError('"inputs" must be the picture in Base64, or an object that holds it as "image".')
        parameters = {name: value for name, value in inputs.items() if name != "image"} | parameters
        inputs = inputs["image"]
    return inputs, {name: value for name, value in parameters.items() if value is not None}


def _options(parameters: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's arguments."""
    if "subtask" in parameters and parameters.get("task", parameters["subtask"]) != parameters["subtask"]:
        raise ValueError("parameters: subtask and task mean the same, but differ; give one.")
    subtask = parameters.get("subtask", parameters.get("task", "semantic"))
    if subtask not in SUBTASKS:
        raise ValueError(f"parameters: subtask must be one of {', '.join(SUBTASKS)}, got {subtask!r}.")
    labels, things = _labels(parameters.get("candidate_labels")), parameters.get("things")
    if things is not None:
        labels = _with_kinds(labels, _names("things", things))
    options: dict[str, Any] = {"candidate_labels": labels, "subtask": subtask}
    for name in ("threshold", "overlap_mask_area_threshold"):
        if name in parameters:
            options[name] = _share(name, parameters[name])
    if "mask_embedding" in parameters:
        if parameters["mask_embedding"] not in METHODS:
            raise ValueError(
                f"parameters: mask_embedding must be one of {', '.join(METHODS)}, got {parameters['mask_embedding']!r}."
            )
        options["mask_embedding"] = parameters["mask_embedding"]
    return options


def _names(parameter: str, value: Any) -> list[str]:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"parameters: {parameter} must be a list of names, or names separated by commas.")
    return [name for name in names if name]


def _labels(labels: Any) -> Any:
    """One entry for each class: a name, or a list of synonyms with the name first."""
    if not labels:
        raise ValueError('parameters: say what to look for, such as {"candidate_labels": ["cat, kitten", "sofa"]}.')
    if isinstance(labels, str):
        labels = [[name] for name in _names("candidate_labels", labels)]
    entries = labels if isinstance(labels, list) else None
    if entries is None or not all(
        isinstance(entry, str) or (isinstance(entry, list) and entry and all(isinstance(name, str) for name in entry))
        for entry in entries
    ):
        raise ValueError(
            "parameters: candidate_labels must be names separated by commas, or a list with a name or a list of "
            "synonyms for each class."
        )
    if len(entries) > MAX_LABELS:
        raise ValueError(f"parameters: candidate_labels are {len(entries)}; at most {MAX_LABELS} are taken.")
    return [entry if isinstance(entry, list) else _names("candidate_labels", entry) for entry in entries]


def _with_kinds(labels: list[list[str]], things: list[str]) -> dict[str, Any]:
    """The labels with their kinds, as the pipeline takes them."""
    unknown = sorted(set(things) - {name for label in labels for name in label})
    if unknown:
        raise ValueError(f"parameters: things holds {', '.join(unknown)}, which is no label.")
    records = [
        {"name": label[0], "synonyms": label, "thing": not set(label).isdisjoint(things)} for label in labels if label
    ]
    return {"classes": records}


def _share(name: str, value: Any) -> float:
    try:
        share = float(value)  # a text if it came in the address of the request
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if not 0 <= share <= 1 or isinstance(value, bool):
        raise ValueError(f"parameters: {name} must be a number from 0 to 1, got {value!r}.")
    return share


def _open(picture: Any) -> Image.Image:
    """The picture, refused before it is decoded if it is too large."""
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, str):
        text = picture.partition(";base64,")[2] if picture.startswith("data:") else picture
        try:
            picture = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                "inputs: the text is no Base64. Send the picture's file in Base64; addresses are not fetched."
            ) from error
    if not isinstance(picture, (bytes, bytearray)):
        raise ValueError(f"inputs: expected a picture's file in Base64, got {type(picture).__name__}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here decides
            image = Image.open(io.BytesIO(picture), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"inputs: the picture has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are read."
            )
        image.load()
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ValueError(f"inputs: this is no picture in a known format ({known}).") from error
    except (OSError, SyntaxError, OverflowError, Image.DecompressionBombError) as error:
        raise ValueError(f"inputs: the picture cannot be read: {error}") from error
    return image


def _as_png(mask: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype("uint8") * 255).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
