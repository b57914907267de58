#!/usr/bin/env bash
# What: If results have a box beside their mask, pycocotools files them under the box's area, and AP by size
#   changes.
# Version: pycocotools 2.0.11 (COCO.loadRes; faster-coco-eval 1.8.0 does the same)
# Seen: A wrong, surer result: a diagonal stroke of 420 pixels in a box of 19880. Without the box it is small and AP
#   of small objects is 0.5; with the box it is large, leaves the small ones alone, and their AP is 1.0. Overall AP
#   is 0.5 both times.
# Why it matters: Two result files with the same masks and scores rank differently for small objects, by a field
#   that mask evaluation seems not to need. Leave the box out, or compare only files that agree.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    pycocotools==2.0.11 numpy==2.4.6

cat > check.py <<'PY'
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print("pycocotools", version("pycocotools"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def evaluated(annotations, results):
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "height": 200, "width": 200}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": annotations,
    }
    with redirect_stdout(StringIO()):
        truth.createIndex()
        found = truth.loadRes(results)
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return int(found.anns[1]["area"]), round(float(evaluation.stats[0]), 2), round(float(evaluation.stats[3]), 2)


def encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


square, stroke = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
square[150:170, 20:40] = True
for row in range(20, 160):
    stroke[row, row : row + 3] = True
truth = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": encoded(square), "iscrowd": 0,
         "area": int(square.sum()), "bbox": coco_mask.toBbox(encoded(square)).tolist()}
for with_box, expected in ((False, (420, 0.5, 0.5)), (True, (19880, 0.5, 1.0))):
    results = [
        {"image_id": 1, "category_id": 1, "score": score, "segmentation": encoded(mask)}
        for mask, score in ((stroke, 0.9), (square, 0.8))
    ]
    for result in results if with_box else []:
        result["bbox"] = coco_mask.toBbox(result["segmentation"]).tolist()
    check(f"with boxes {with_box}: the stroke's area, AP, AP of small ones", evaluated([truth], results), expected)
PY
venv/bin/python check.py
