"""What the OpenAPI description says of bodies that are read by hand, with examples that work as they stand."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

from .schemas import Problem, SegmentationAnswer

_REFERENCE = "#/components/schemas/"
_MASK = {"size": [48, 64], "counts": [680, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 2128]}
"""Six columns in the example's square."""

_TITLES = {
    400: "Malformed body",
    401: "The key is missing or wrong",
    408: "The body did not arrive in time",
    413: "Body or picture too large",
    415: "Unknown type of body or picture",
    424: "A task's picture cannot be had",
    422: "A field that cannot be used",
    500: "A fault of the program",
    503: "Too many requests wait; Retry-After tells when to come back",
    504: "No result in time",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _TITLES[status]} for status in statuses}


def example_picture() -> bytes:
    """A PNG of 64×48 pixels: a red square on sand."""
    image = Image.new("RGB", (64, 48), (214, 190, 130))
    ImageDraw.Draw(image).rectangle((14, 8, 37, 31), fill=(200, 40, 40))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


_IMAGE = base64.b64encode(example_picture()).decode()
_BINARY = {"type": "string", "format": "binary"}

SEGMENT_EXAMPLES: dict[str, dict[str, Any]] = {
    "labels": {
        "summary": "One label for every pixel",
        "value": {"image": _IMAGE, "labels": ["sand", "water, sea", "plain red square"]},
    },
    "panoptic": {
        "summary": "Things apart, stuff merged",
        "value": {
            "image": _IMAGE,
            "labels": ["sand", ["water", "sea"], "plain red square"],
            "things": ["plain red square"],
            "task": "panoptic",
            "threshold": 0.3,
            "overlap_threshold": 0.5,
        },
    },
    "instances": {
        "summary": "Objects one by one, as a picture of their ids",
        "value": {"image": _IMAGE, "labels": "plain red square, sand", "task": "instance", "format": "png"},
    },
    "label_set": {
        "summary": "A built-in label set, classified by plain mask pooling",
        "value": {"image": _IMAGE, "labels": "cityscapes_19", "mask_embedding": "pooling"},
    },
}
CLASSIFY_EXAMPLES: dict[str, dict[str, Any]] = {
    "run_lengths": {
        "summary": "A run-length encoding and a polygon",
        "value": {
            "image": _IMAGE,
            "labels": ["sand", "plain red square"],
            "masks": [_MASK, [[14, 8, 38, 8, 38, 32, 14, 32]]],
        },
    },
}
FORM_EXAMPLES: dict[str, dict[str, Any]] = {
    "segment": {"image": "(the file)", "labels": ["sand", "water, sea", "plain red square"], "task": "panoptic"},
    "classify": {
        "image": "(the file)",
        "labels": "sand, plain red square",
        "masks": "[[[14, 8, 38, 8, 38, 32, 14, 32]]]",
    },
}


def _body(schema: str, examples: dict[str, Any], form: dict[str, Any], form_example: dict[str, Any]) -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": _REFERENCE + schema}, "examples": examples},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": form, "required": ["image", "labels"]},
                "encoding": {"labels": {"style": "form", "explode": True}},
                "example": form_example,
            },
            "image/png": {"schema": _BINARY},
            "image/jpeg": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
        },
    }


def _of(schema: str, name: str) -> dict[str, Any]:
    return {"$ref": f"{_REFERENCE}{schema}/properties/{name}"}


def _form(schema: str, *names: str) -> dict[str, Any]:
    labels = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    return {"image": _BINARY, "labels": labels} | {name: _of(schema, name) for name in names}


def _query(schema: str, *names: str) -> list[dict[str, Any]]:
    where = "Beside the picture's bare bytes only; forms and JSON hold it themselves."
    return [
        {"name": name, "in": "query", "required": False, "description": where, "schema": _of(schema, name)}
        for name in names
    ]


def _answers(problems: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    content = {"image/png": {"schema": _BINARY}}
    found = {"model": SegmentationAnswer, "description": "What was found, in the form asked for", "content": content}
    return {200: found} | problems


_SEGMENT_NAMES = ("things", "task", "threshold", "overlap_threshold", "mask_embedding", "format")
_CLASSIFY_NAMES = ("mask_embedding", "format")
_PROBLEMS = _problems(400, 401, 408, 413, 415, 422, 500, 503, 504)
INFORMATION_PROBLEMS = _problems(401, 500)

SEGMENT: dict[str, Any] = {
    "responses": _answers(_PROBLEMS),
    "openapi_extra": {
        "requestBody": _body(
            "SegmentRequest",
            SEGMENT_EXAMPLES,
            _form("SegmentFields", *_SEGMENT_NAMES),
            FORM_EXAMPLES["segment"],
        ),
        "parameters": _query("SegmentFields", "labels", *_SEGMENT_NAMES),
    },
}
CLASSIFY: dict[str, Any] = {
    "responses": _answers(_PROBLEMS),
    "openapi_extra": {
        "requestBody": _body(
            "ClassifyRequest",
            CLASSIFY_EXAMPLES,
            _form("ClassifyFields", *_CLASSIFY_NAMES)
            | {
                "masks": {"type": "string", "description": "The masks as JSON."},
                "mask": {"type": "array", "items": _BINARY},
            },
            FORM_EXAMPLES["classify"],
        ),
    },
}


def _protocol(properties: dict[str, Any], example: dict[str, Any], answer: str, *further: int) -> dict[str, Any]:
    """A body and an answer of Label Studio's, which may hold more than is named."""
    schema = {"type": "object", "properties": properties, "required": list(example)}
    return {
        "responses": {200: {"description": answer, "content": {"application/json": {"schema": {"type": "object"}}}}}
        | _problems(400, 401, 408, 413, 422, 500, 503, 504, *further),
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema, "example": example}},
            }
        },
    }


_TEXT = {"type": "string"}
_INTERFACE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image"><Label value="sand"/>'
    '<Label value="square" predicted_values="plain red square"/></BrushLabels></View>'
)
SETUP = _protocol(
    {"project": _TEXT, "schema": _TEXT}, {"project": "1.1700000000", "schema": _INTERFACE}, "The model's version"
)
PREDICT = _protocol(
    {
        "tasks": {"type": "array", "items": {"type": "object"}},
        "label_config": _TEXT,
        "project": _TEXT,
        "params": {"type": "object"},
    },
    {
        "tasks": [{"id": 1, "data": {"image": f"data:image/png;base64,{_IMAGE}"}}],
        "label_config": _INTERFACE,
    },
    "A prediction for each task",
    415,
    424,
)
WEBHOOK = _protocol({"action": _TEXT}, {"action": "ANNOTATION_CREATED"}, "Taken note of")

__all__ = [
    "CLASSIFY",
    "CLASSIFY_EXAMPLES",
    "FORM_EXAMPLES",
    "INFORMATION_PROBLEMS",
    "PREDICT",
    "SEGMENT",
    "SEGMENT_EXAMPLES",
    "SETUP",
    "WEBHOOK",
    "example_picture",
]
