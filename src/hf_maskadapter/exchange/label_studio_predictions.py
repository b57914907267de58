"""Predictions for Label Studio: which labels an interface asks for, and segments as brush regions of its control."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from ..model.segments import Segment, Segments
from .errors import ExchangeError
from .label_studio_brush import encode_brush
from .label_studio_interface import read_labels
from .label_studio_reading import CROWD_NOTE

_VARIABLE = re.compile(r"\$([\w.\-]+)")


@dataclass(frozen=True)
class BrushControl:
    """The first `BrushLabels` of a labeling interface, and the picture that it is for.

    Args:
        name: of the control.
        image: name of the picture's tag.
        data_key: where in a task's data the picture's address is.
        results: for each label the text that results hold: its alias, else its value.
        synonyms: for each label what to look for: its `predicted_values`, else its value. The first names the class.
        settings: the control's attributes that begin with `model_`, without these letters.
    """

    name: str
    image: str
    data_key: str
    results: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    settings: dict[str, str] = field(default_factory=dict)


def read_brush_control(config: str) -> BrushControl:
    """Read a labeling interface, as Label Studio hands it to a machine learning backend.

    Raises:
        ExchangeError: if it is none, or has no brush with labels for a picture.
    """
    try:
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError) as error:
        raise ExchangeError(f"The labeling interface cannot be read: {error}.") from error
    images = {element.get("name", ""): element for element in root.iter("Image")}
    for control in root.iter("BrushLabels"):
        image = next((name for name in _targets(control) if name in images), None)
        if image is None:
            continue
        key = _VARIABLE.search(images[image].get("value", ""))
        if key is None:
            raise ExchangeError(
                f"The labeling interface's Image {image!r} must say where a task's picture is, as in value=\"$image\"."
            )
        name = control.get("name") or control.tag
        labels = [label for label in control.iter("Label")]
        results = tuple(read_labels(control, "The labeling interface"))
        if not results:
            raise ExchangeError(f"The labeling interface's BrushLabels {name!r} has no Label: add what to look for.")
        if len(results) != len(labels):
            raise ExchangeError(f"The labeling interface's BrushLabels {name!r} holds a label twice.")
        settings = {key[6:]: value for key, value in control.attrib.items() if key.startswith("model_")}
        return BrushControl(name, image, key[1], results, tuple(map(_synonyms, labels)), settings)
    raise ExchangeError(
        "The labeling interface has no BrushLabels for an Image, which predictions could be brush regions of: add "
        'one, as in <BrushLabels name="label" toName="image"><Label value="cat"/></BrushLabels>.'
    )


def brush_region(segment: Segment, number: int, label: str, control: str, image: str) -> dict[str, Any]:
    """A segment as Label Studio's result.

    Args:
        segment: which.
        number: its number in the picture, from 1.
        label: its class, as the control calls it.
        control: name of the control.
        image: name of the picture's tag.
    """
    height, width = segment.mask.shape
    return {
        "id": f"segment-{number}",
        "type": "brushlabels",
        "from_name": control,
        "to_name": image,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        **({} if segment.score is None else {"score": segment.score}),
        **({"meta": {"text": [CROWD_NOTE]}} if segment.is_crowd else {}),
        "value": {"format": "rle", "rle": encode_brush(segment.mask), "brushlabels": [label]},
    }


def prediction(model: str, segments: Segments, regions: list[dict[str, Any]]) -> dict[str, Any]:
    """A task's prediction: its regions, and the mean of their scores if there are any."""
    scores = [segment.score for segment in segments if segment.score is not None]
    return {
        "model_version": model,
        "result": regions,
        **({"score": sum(scores) / len(scores)} if scores else {}),
    }


def predict_for(control: BrushControl, segments: Segments, model: str) -> dict[str, Any]:
    """A task's prediction for a control.

    Args:
        control: whose labels are the vocabulary's classes, in their order.
        segments: of the task's picture.
        model: what to call the model.
    """
    regions = [
        brush_region(segment, number, control.results[segment.class_id], control.name, control.image)
        for number, segment in enumerate(segments, start=1)
    ]
    return prediction(model, segments, regions)


def _targets(control: ElementTree.Element) -> list[str]:
    return [target.strip() for target in (control.get("toName") or "").split(",")]


def _synonyms(label: ElementTree.Element) -> tuple[str, ...]:
    names = (name.strip() for name in (label.get("predicted_values") or "").split(","))
    return tuple(name for name in names if name) or (label.get("value", ""),)


__all__ = ["BrushControl", "brush_region", "predict_for", "prediction", "read_brush_control"]
