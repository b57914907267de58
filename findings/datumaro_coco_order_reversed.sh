#!/usr/bin/env bash
# What: datumaro reads the annotations of a COCO file in reverse, so that label maps painted from them show the
#   other object on top.
# Version: datumaro 1.13.12 (coco_instances to cityscapes)
# Seen: Annotations 1, 2, 3 are read as 3, 2, 1, all with z_order 0. Of two overlapping polygons the later one lies
#   on top by the file's order; the Cityscapes map shows the earlier one.
# Why it matters: Converting instances to label maps swaps front and back in every overlap; set z_order from the
#   annotation id before exporting.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    datumaro==1.13.12 numpy==2.4.6 pillow==12.3.0 pycocotools==2.0.11

cat > check.py <<'PY'
import json
import logging
from importlib.metadata import version
from pathlib import Path

import datumaro
import numpy as np
from datumaro.components.annotation import AnnotationType
from PIL import Image

logging.disable(logging.CRITICAL)
print("datumaro", version("datumaro"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


corners = {1: [0, 0, 4, 0, 4, 4, 0, 4], 2: [2, 2, 8, 2, 8, 6, 2, 6]}
coco = {
    "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": number, "image_id": 1, "category_id": number, "segmentation": [points], "iscrowd": 0, "area": 16,
         "bbox": [points[0], points[1], points[2] - points[0], points[5] - points[1]]}
        for number, points in corners.items()
    ],
}
Path("data/annotations").mkdir(parents=True)
Path("data/images/train").mkdir(parents=True)
Image.new("RGB", (8, 6)).save("data/images/train/a.png")
Path("data/annotations/instances_train.json").write_text(json.dumps(coco))
dataset = datumaro.Dataset.import_from("data", "coco_instances")
(item,) = dataset
polygons = [shape for shape in item.annotations if shape.type == AnnotationType.polygon]
check("ids as read", [shape.id for shape in polygons], [2, 1])
check("z_order", [shape.z_order for shape in polygons], [0, 0])


def overlap_is_of(folder):
    dataset.transform("polygons_to_masks")
    dataset.export(folder, "cityscapes")
    labels = np.asarray(Image.open(next(Path(folder).rglob("*_labelIds.png"))))
    return {int(labels[0, 0]): "cat", int(labels[5, 7]): "dog"}[int(labels[3, 3])]


check("on top in the Cityscapes map (the file has the dog last)", overlap_is_of("cityscapes"), "cat")
PY
venv/bin/python check.py
