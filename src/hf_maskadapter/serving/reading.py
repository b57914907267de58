"""The body of a request to its fields and pictures, in each of the three forms that it may have.

Fields come from a form, from JSON, or from the address beside the picture's bare bytes. Nothing is written to disk.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header

from .errors import RequestError
from .limits import RequestLimits
from .schemas import ClassifyFields, ClassifyRequest, EncodedMask, RunLengths, SegmentFields, SegmentRequest

Fields = TypeVar("Fields", bound=BaseModel)

_LISTS = ("labels", "things")
_MOST_PARTS = 100
"""Of a form, beside labels."""

_MOST_CORNERS = 20_000
_MOST_POLYGONS_PER_MASK = 10
_FORMS = {
    "labels": "expected names separated by commas, or a list with a name or a list of synonyms for each class",
    "masks": 'expected a run-length encoding, {"size": [height, width], "counts": ...}; a list of polygons, '
    '[[x, y, x, y, ...]], also if there is one; or {"png": "..."} in Base64',
}
"""What is expected of fields with several forms, of each of which Pydantic would tell what it misses."""

_JSON = "application/json"
_FORM = "multipart/form-data"


@dataclass
class Read(Generic[Fields]):
    """What a request holds.

    Args:
        fields: checked.
        image: the encoded picture.
        masks: pictures of masks.
    """

    fields: Fields
    image: bytes
    masks: list[bytes] = field(default_factory=list)


Query = Sequence[tuple[str, str]]


def read_segment_request(content_type: str, query: Query, body: bytes, limits: RequestLimits) -> Read[SegmentFields]:
    """What is to be segmented, and how.

    Args:
        content_type: the header.
        query: names and values after the address's question mark.
        body: the whole body.
        limits: of the request.

    Raises:
        RequestError: if it is malformed.
    """
    if _kind(content_type) == _JSON:
        asked = _from_json(SegmentRequest, body, query)
        return Read(asked, _decoded(asked.image, "image"))
    values, files = _values(content_type, query, body, limits)
    return Read(_checked(SegmentFields, values), _only_image(files))


def read_classify_request(content_type: str, query: Query, body: bytes, limits: RequestLimits) -> Read[ClassifyFields]:
    """Which masks are to be classified, and how. In a form, masks are files `mask`, or JSON in the field `masks`.

    Args:
        content_type: the header.
        query: names and values after the address's question mark.
        body: the whole body.
        limits: of the request.

    Raises:
        RequestError: if it is malformed.
    """
    if _kind(content_type) == _JSON:
        asked = _from_json(ClassifyRequest, body, query)
        return Read(asked, _decoded(asked.image, "image"))
    values, files = _values(content_type, query, body, limits)
    if "masks" in values:
        values["masks"] = _loaded(values["masks"], "masks")
    masks = files.pop("mask", [])
    return Read(_checked(ClassifyFields, values), _only_image(files), masks)


def mask_entries(read: Read[ClassifyFields], limits: RequestLimits) -> list[Any]:
    """The masks of a request in forms that [`read_own_masks`] takes.

    Raises:
        RequestError: if one is malformed, or polygons have too many corners.
    """
    entries: list[Any] = []
    corners = polygons = 0
    for mask in read.fields.masks:
        if isinstance(mask, RunLengths):
            entries.append(mask.model_dump())
        elif isinstance(mask, EncodedMask):
            entries.append(_decoded(mask.png, "masks"))
        else:
            corners += sum(len(polygon) // 2 for polygon in mask)
            polygons += len(mask)
            entries.append(mask)
    if corners > _MOST_CORNERS or polygons > _MOST_POLYGONS_PER_MASK * limits.max_masks:
        raise RequestError(
            422,
            f"masks: more than {_MOST_CORNERS} corners or {_MOST_POLYGONS_PER_MASK * limits.max_masks} polygons; send "
            "fewer masks, or run-length encodings.",
        )
    return entries + read.masks


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _values(
    content_type: str, query: Query, body: bytes, limits: RequestLimits
) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Fields by their names, and files by theirs."""
    kind = _kind(content_type)
    if kind == _FORM:
        fields, files = _from_form(content_type, body, limits)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        fields, files = [], {"image": [body]}
    else:
        raise RequestError(
            415,
            f"A body of type {kind or 'unknown'!r} cannot be read: send a form ({_FORM}), {_JSON}, or the picture's "
            "bytes as image/jpeg, image/png and so on.",
        )
    gathered: dict[str, list[str]] = {}
    for name, value in [*query, *fields]:
        gathered.setdefault(name, []).append(value)
    values: dict[str, Any] = {}
    for name, given in gathered.items():
        if name == "things":
            given = given[0].split(",") if len(given) == 1 else given
            values[name] = [thing.strip() for thing in given if thing.strip()]
        elif len(given) == 1:
            values[name] = given[0]
        elif name in _LISTS:
            values[name] = given
        else:
            raise RequestError(422, f"{name!r} is given {len(given)} times; give it once.")
    return values, files


def _from_form(
    content_type: str, body: bytes, limits: RequestLimits
) -> tuple[list[tuple[str, str]], dict[str, list[bytes]]]:
    fields: list[tuple[str, str]] = []
    files: dict[str, list[bytes]] = {}
    ended = False
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1
        if count > limits.max_labels + limits.max_masks + _MOST_PARTS:
            raise RequestError(413, "The form has too many parts.")

    def on_field(one: Field) -> None:
        counted()
        name = _text(one.field_name)
        if name in ("image", "mask"):  # sent without a file name
            files.setdefault(name, []).append(one.value or b"")
        else:
            fields.append((name, _text(one.value)))

    def on_file(file: File) -> None:
        counted()
        file.file_object.seek(0)
        files.setdefault(_text(file.field_name), []).append(file.file_object.read())

    def on_end() -> None:
        nonlocal ended
        ended = True

    _, options = parse_options_header(content_type)
    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "UPLOAD_ERROR_ON_BAD_CTE": True}
    try:
        parser = FormParser(_FORM, on_field, on_file, on_end, boundary=options.get(b"boundary"), config=in_memory)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(400, f"The form is malformed: {error}") from error
    if not ended:
        raise RequestError(400, "The form ends before its last boundary: it is cut off.")
    return fields, files


def _text(value: bytes | None) -> str:
    try:
        return (value or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(400, "A name or value in the form is not UTF-8 text.") from error


def _only_image(files: dict[str, list[bytes]]) -> bytes:
    images = files.pop("image", [])
    if files:
        raise RequestError(422, f"{sorted(files)[0]!r} is no file that is read here.")
    if len(images) != 1:
        raise RequestError(422, f"image: send one picture, got {len(images)}.")
    return images[0]


def _from_json(kind: type[Fields], body: bytes, query: Query) -> Fields:
    if query:
        raise RequestError(422, f"{query[0][0]!r} stands in the address: with a body of JSON, put it there.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise refused(error) from error


def _checked(kind: type[Fields], values: dict[str, Any]) -> Fields:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise refused(error) from error


def refused(error: ValidationError) -> RequestError:
    """The first thing that is wrong, in a sentence that does not repeat what was sent."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return RequestError(400, f"The body is no JSON: {first['msg'].removeprefix('Invalid JSON: ')}.")
    known = [part for part in first["loc"] if isinstance(part, int) or str(part).isidentifier()]
    where = ".".join(str(part) for part in known[:3]) or "body"
    if known and known[0] in _FORMS and len(first["loc"]) > 1:
        number = next((f".{part}" for part in known[1:2] if isinstance(part, int)), "")
        return RequestError(422, f"{known[0]}{number}: {_FORMS[known[0]]}.")
    return RequestError(422, f"{where[:100]}: {first['msg']}.")


def _loaded(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"{name}: this is no JSON.") from error


def _decoded(text: str, name: str) -> bytes:
    """What Base64 holds, also with the head of a data address."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # many encoders break lines
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"{name}: this is no Base64: {error}.") from error


__all__ = ["Read", "mask_entries", "read_classify_request", "read_segment_request", "refused"]
