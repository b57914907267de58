#!/usr/bin/env bash
# What: supervision writes masks with a hole or in several parts to COCO as crowds, and thin ones without any pixel.
# Version: supervision 0.31.2 (DetectionDataset.as_coco), pycocotools 2.0.11
# Seen: A disc, a ring and two discs as one object, iscrowd 0, 1, 1; results that hold the disc alone get AP 1.0 at
#   an overlap of 0.5, and 0.34 with iscrowd 0. A stroke one pixel wide is written with `segmentation: []` and a box
#   of height 0.
# Why it matters: Doughnuts, people behind poles and wires drop out of the evaluation without a trace. Put zeros
#   into the detections' data as iscrowd, or write run lengths yourself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    supervision==0.31.2 numpy==2.4.6 pillow==13.0.0 pycocotools==2.0.11

cat > check.py <<'PY'
import json
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

warnings.simplefilter("ignore")
import numpy as np
import supervision
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print("supervision", supervision.__version__)


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


def disc(x, y, radius):
    rows, columns = np.mgrid[:100, :100]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


stroke = np.zeros((100, 100), bool)
stroke[90, 10:80] = True
masks = np.stack([disc(25, 25, 15), disc(70, 25, 15) & ~disc(70, 25, 7), disc(20, 70, 8) | disc(60, 70, 8), stroke])
found = supervision.Detections(
    xyxy=supervision.mask_to_xyxy(masks).astype(float), mask=masks, class_id=np.zeros(len(masks), int)
)
Image.new("RGB", (100, 100)).save("a.png")
dataset = supervision.DetectionDataset(classes=["cat"], images=["a.png"], annotations={"a.png": found})
dataset.as_coco(annotations_path="coco.json", approximation_percentage=0.0)
annotations = json.loads(Path("coco.json").read_text())["annotations"]
check("crowds: disc, ring, two discs, stroke", [annotation["iscrowd"] for annotation in annotations], [0, 1, 1, 0])
check("the stroke's segmentation", annotations[3]["segmentation"], [])
check("the stroke's box", annotations[3]["bbox"], [10.0, 90.0, 69.0, 0.0])


def half_overlap(truth):
    disc_only = {"image_id": 1, "category_id": 1, "score": 0.9,
                 "segmentation": coco_mask.encode(np.asfortranarray(masks[0], np.uint8))}
    return round(float(average_precision(truth, [disc_only])[1]), 2)


check("AP at 0.5 of the disc alone", half_overlap(annotations[:3]), 1.0)
check("the same with iscrowd 0", half_overlap([{**annotation, "iscrowd": 0} for annotation in annotations[:3]]), 0.34)
PY
venv/bin/python check.py
