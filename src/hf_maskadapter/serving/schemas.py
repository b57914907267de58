"""The forms of requests and answers: they check what comes, and the OpenAPI description is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(allow_inf_nan=False)]
Format = Literal["json", "png", "overlay"]

_REFERENCE = "#/components/schemas/{model}"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CommonFields(_Strict):
    """What both ways of asking have in common, beside the picture."""

    labels: str | list[str | list[str]] = Field(
        description="What to look for: names separated by commas, the name of a built-in label set, or a list with an "
        'entry for each class: a name, synonyms separated by commas ("cat, kitten"), or a list of synonyms.',
        examples=[["sand", "water, sea", "dotted yellow star"]],
    )
    mask_embedding: Literal["adapter", "pooling", "crop"] | None = Field(
        None, description="How masks are classified; by default as the service was told."
    )
    format: Format | None = Field(
        None,
        description="json: masks as COCO's run-length encodings; png: one picture whose pixels are the segments' ids; "
        "overlay: the picture painted. By default json, or png where the header Accept asks for image/png alone.",
    )


class SegmentFields(CommonFields):
    """How a picture is segmented."""

    things: list[str] | None = Field(
        None, description="The countable classes among the labels; all others are then stuff. By default all are."
    )
    task: Literal["semantic", "panoptic", "instance"] = Field("semantic", description="What kind of result.")
    threshold: Fraction | None = Field(None, description="Least score of panoptic and instance segments.")
    overlap_threshold: Fraction | None = Field(None, description="Least visible share of a panoptic segment.")


class RunLengths(_Strict):
    """COCO's run-length encoding of a mask."""

    size: tuple[int, int] = Field(description="Height and width of the picture as a viewer shows it.")
    counts: str | list[int] = Field(
        description="Lengths of runs down the columns, background first, as a list or as COCO's compressed text."
    )


class EncodedMask(_Strict):
    """A picture of a mask, or a map of segments, each value of which is a mask."""

    png: str = Field(description="The picture file in Base64.", json_schema_extra={"format": "byte"})


Polygons = list[list[Coordinate]]
Mask = RunLengths | EncodedMask | Polygons


class ClassifyFields(CommonFields):
    """How own masks are classified."""

    masks: list[Mask] = Field(
        [],
        description="Of each mask COCO's run-length encoding; a list of polygons, each [x, y, x, y, ...] in pixels, "
        "drawn by COCO's rule; or a picture of it.",
    )


class SegmentRequest(SegmentFields):
    """A picture to segment, as JSON."""

    image: str = Field(description="The picture file in Base64.", json_schema_extra={"format": "byte"})


class ClassifyRequest(ClassifyFields):
    """A picture and masks of it, as JSON."""

    image: str = Field(description="The picture file in Base64.", json_schema_extra={"format": "byte"})


class FoundSegment(BaseModel):
    """One segment."""

    id: int = Field(description="Its value in the picture of ids; the label's place, counted from 1, if semantic.")
    label: str
    label_id: int = Field(description="The label's place among the labels, counted from 0.")
    score: float | None = Field(description="The model's confidence, 0 to 1; null if semantic.")
    area: int = Field(description="Pixels inside.")
    box: tuple[int, int, int, int] = Field(description="Left, top, width and height in pixels.")
    segmentation: RunLengths


class SegmentationAnswer(BaseModel):
    """What was found."""

    model: str
    task: str | None = Field(description="null for masks of one's own.")
    width: int = Field(description="Of the picture as a viewer shows it, in pixels.")
    height: int
    labels: list[str] = Field(description="The classes' names; label_id counts them from 0.")
    segments: list[FoundSegment] = Field(description="Instances with the best one first; own masks in their order.")
    warnings: list[str]


class ServedModel(BaseModel):
    """The model that answers."""

    name: str
    title: str | None
    license: str | None
    num_parameters: int
    mask_embeddings: list[str] = Field(description="Ways of classifying masks that it has.")


class ServedModels(BaseModel):
    """What there is to ask for."""

    models: list[ServedModel]
    tasks: list[str]
    label_sets: list[str] = Field(description="Names that `labels` takes.")
    picture_formats: list[str]
    limits: dict[str, float] = Field(description="Of one request.")


class Problem(BaseModel):
    """Why there is no result."""

    detail: str = Field(description="What was wrong, what was expected and how to mend it.")


COMPONENTS = (SegmentRequest, ClassifyRequest, SegmentFields, ClassifyFields)
"""Models that the OpenAPI description holds beside those that FastAPI finds."""


def component_schemas() -> dict[str, Any]:
    """The schemas of [`COMPONENTS`] and of what these hold, by their names."""
    schemas: dict[str, Any] = {}
    for model in COMPONENTS:
        schema = model.model_json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return schemas


__all__ = [
    "ClassifyFields",
    "ClassifyRequest",
    "EncodedMask",
    "FoundSegment",
    "Problem",
    "RunLengths",
    "SegmentFields",
    "SegmentRequest",
    "SegmentationAnswer",
    "ServedModel",
    "ServedModels",
    "component_schemas",
]
