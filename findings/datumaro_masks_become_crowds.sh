#!/usr/bin/env bash
# What: datumaro writes masks to COCO either as crowds, which evaluators ignore, or as shrunken polygons; a run-
#   length mask of an ordinary object is not among its modes.
# Version: datumaro 1.13.12 (coco_instances), pycocotools 2.0.11
# Seen: A ring without an is_crowd attribute (as after reading CVAT) becomes a crowd, and AP of perfect results is
#   -1 (no object to find). With is_crowd=False it becomes a polygon without the hole (AP 0.5, and 0 at an overlap
#   of 0.75). segmentation_mode=mask marks polygons as crowds, too.
# Why it matters: After a detour by datumaro there is nothing left to evaluate, or masks are compared with filled
#   outlines. Export with segmentation_mode=mask and set iscrowd back to 0 for those that are none.
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
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import datumaro
import numpy as np
from datumaro.components.annotation import Mask, Polygon
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

logging.disable(logging.CRITICAL)
print("datumaro", version("datumaro"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def average_precision(annotations, results):
    dataset = {"images": [{"id": 1, "height": 100, "width": 100}], "categories": [{"id": 1, "name": "cat"}]}
    truth = COCO()
    truth.dataset = {**dataset, "annotations": annotations}
    with redirect_stdout(StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


rows, columns = np.mgrid[:100, :100]
distance = (columns - 50) ** 2 + (rows - 50) ** 2
ring = ((distance <= 30**2) & (distance > 15**2)).astype(np.uint8)
picture = datumaro.Image.from_numpy(np.zeros((100, 100, 3), np.uint8))
encoded = coco_mask.encode(np.asfortranarray(ring))
numbers = iter(range(99))


def written(shape, mode="guess"):
    item = datumaro.DatasetItem("a", media=picture, annotations=[shape])
    folder = f"coco-{next(numbers)}"
    datumaro.Dataset.from_iterable([item], categories=["cat"]).export(folder, "coco_instances", segmentation_mode=mode)
    (annotation,) = json.loads(Path(folder, "annotations/instances_default.json").read_text())["annotations"]
    kind = "polygons" if isinstance(annotation["segmentation"], list) else "run lengths"
    perfect = {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": encoded}
    stats = average_precision([annotation], [perfect])
    print(f"  area {annotation['area']:.0f} of {ring.sum()}")
    return kind, annotation["iscrowd"], round(float(stats[0]), 2), round(float(stats[2]), 2)


no_crowd = {"is_crowd": False}
check("mask: kind, crowd, AP, AP at 0.75", written(Mask(ring, label=0)), ("run lengths", 1, -1.0, -1.0))
check("mask, is_crowd=False", written(Mask(ring, label=0, attributes=no_crowd)), ("polygons", 0, 0.5, 0.0))
check("the same, mode mask", written(Mask(ring, label=0, attributes=no_crowd), "mask"), ("run lengths", 1, -1.0, -1.0))
square = Polygon([20, 20, 80, 20, 80, 80, 20, 80], label=0, attributes=no_crowd)
check("polygon, mode mask: kind, crowd", written(square, "mask")[:2], ("run lengths", 1))
PY
venv/bin/python check.py
