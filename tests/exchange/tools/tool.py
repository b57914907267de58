"""Calls of datumaro, Label Studio's converter and supervision, for the Python in whose environment they are installed.

Reads a call as JSON, `{"call": name, ...}`, from its input and prints what comes of it as JSON. Masks are lists of the
lengths of runs, row by row, background first.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import numpy as np


def run_lengths(mask: np.ndarray) -> list[int]:
    values = np.asarray(mask).astype(bool).ravel().tolist()
    lengths, current = [0], False
    for value in values:
        if value != current:
            lengths.append(0)
            current = value
        lengths[-1] += 1
    return lengths


def mask_of(lengths: list[int], size: list[int]) -> np.ndarray:
    return np.repeat([number % 2 for number in range(len(lengths))], lengths).astype(np.uint8).reshape(size)


def read_datumaro(folder: str, kind: str) -> dict[str, Any]:
    """What datumaro reads: labels, and for each picture its size and annotations."""
    import datumaro

    dataset = datumaro.Dataset.import_from(folder, kind)
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    pictures = {}
    for item in dataset:
        annotations = []
        for annotation in item.annotations:
            facts = {"type": annotation.type.name, "label": None, "attributes": annotation.attributes}
            if annotation.label is not None:
                facts["label"] = labels[annotation.label]
            facts["z_order"] = getattr(annotation, "z_order", None)
            if annotation.type == datumaro.AnnotationType.mask:
                facts["mask"] = run_lengths(annotation.image)
            annotations.append(facts)
        pictures[item.id] = {"size": item.media.size if item.media else None, "annotations": annotations}
    return {"labels": labels, "pictures": pictures}


def convert_datumaro(folder: str, kind: str, target: str, target_kind: str, **options: Any) -> None:
    """Read a folder and write it in another form."""
    import datumaro

    datumaro.Dataset.import_from(folder, kind).export(target, target_kind, save_media=True, **options)


def convert_label_studio(config: str, tasks: str, target: str, kind: str) -> None:
    """Convert an export of Label Studio."""
    from label_studio_sdk.converter import Converter

    with open(config, encoding="utf-8") as file:
        converter = Converter(file.read(), project_dir=target, download_resources=False)
    converter.convert(tasks, target, kind, is_dir=False)


def import_coco_to_label_studio(source: str, target: str) -> None:
    """Turn COCO's annotations into tasks of Label Studio."""
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    convert_coco_to_ls(source, target)


def validate_label_studio(config: str, tasks: str) -> list[Any]:
    """What Label Studio's own check objects to in the predictions of some tasks."""
    from label_studio_sdk.label_interface import LabelInterface

    with open(config, encoding="utf-8") as file:
        interface = LabelInterface(file.read())
    with open(tasks, encoding="utf-8") as file:
        content = json.load(file)
    predictions = [prediction for task in content for prediction in task["predictions"]]
    return [interface.validate_prediction(prediction, return_errors=True) for prediction in predictions]


def encode_brush(lengths: list[int], size: list[int]) -> list[int]:
    """Label Studio's encoding of a mask."""
    from label_studio_sdk.converter import brush

    return [int(byte) for byte in brush.mask2rle(mask_of(lengths, size) * 255)]


def decode_brush(encoded: list[int], size: list[int]) -> list[int]:
    """What Label Studio sees in an encoded mask."""
    from label_studio_sdk.converter import brush

    return run_lengths(brush.decode_rle(encoded).reshape(*size, 4)[..., 3] > 0)


def write_coco_with_supervision(masks: list[list[int]], size: list[int], folder: str, **options: Any) -> Any:
    """Detections of one class on the picture `a.png` of a folder, as COCO's file; returns their boxes."""
    import supervision
    from PIL import Image

    path = f"{folder}/a.png"
    Image.new("RGB", (size[1], size[0])).save(path)
    arrays = np.stack([mask_of(lengths, size).astype(bool) for lengths in masks])
    boxes = supervision.mask_to_xyxy(arrays)
    detections = supervision.Detections(xyxy=boxes, mask=arrays, class_id=np.zeros(len(masks), dtype=int))
    dataset = supervision.DetectionDataset(classes=["cat"], images=[path], annotations={path: detections})
    dataset.as_coco(annotations_path=f"{folder}/annotations.json", **options)
    return boxes.tolist()


CALLS = {
    function.__name__: function
    for function in (
        convert_datumaro,
        convert_label_studio,
        decode_brush,
        encode_brush,
        import_coco_to_label_studio,
        read_datumaro,
        validate_label_studio,
        write_coco_with_supervision,
    )
}

if __name__ == "__main__":
    call = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        outcome = CALLS[call.pop("call")](**call)
    json.dump(outcome, sys.stdout)
