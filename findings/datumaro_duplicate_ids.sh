#!/usr/bin/env bash
# What: datumaro gives a new annotation the id of an existing one, and pycocotools then loses one of the two.
# Version: datumaro 1.13.12 (coco_instances), pycocotools 2.0.11
# Seen: Two polygons, one with id 9 and one without: both are written with id 9; pycocotools finds one in `anns`. AP
#   of perfect results is 0.252.
# Why it matters: Adding annotations to a COCO file that was read by datumaro (from a model, from another tool)
#   makes every evaluation wrong; export with reindex=True.
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
from datumaro.components.annotation import Polygon
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


picture = datumaro.Image.from_numpy(np.zeros((100, 100, 3), np.uint8))
shapes = [Polygon([5, 10, 35, 10, 35, 40, 5, 40], label=0, id=9), Polygon([50, 10, 80, 10, 80, 40, 50, 40], label=0)]
item = datumaro.DatasetItem("a", media=picture, annotations=shapes)
dataset = datumaro.Dataset.from_iterable([item], categories=["cat"])
for options, ids, known, expected in (({}, [9, 9], 1, 0.252), ({"reindex": True}, [1, 2], 2, 1.0)):
    folder = f"coco{len(options)}"
    dataset.export(folder, "coco_instances", **options)
    file = f"{folder}/annotations/instances_default.json"
    annotations = json.loads(Path(file).read_text())["annotations"]
    check(f"{options}: ids", [annotation["id"] for annotation in annotations], ids)
    with redirect_stdout(StringIO()):
        truth = COCO(file)
    check(f"{options}: annotations that pycocotools knows by id", len(truth.anns), known)
    results = [
        {"image_id": 1, "category_id": 1, "score": 0.9,
         "segmentation": coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], 100, 100))}
        for annotation in annotations
    ]
    stats = average_precision(annotations, results)
    check(f"{options}: AP of perfect results", round(float(stats[0]), 3), expected)
PY
venv/bin/python check.py
