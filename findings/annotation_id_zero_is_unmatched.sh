#!/usr/bin/env bash
# What: pycocotools takes the annotation with id 0 for unmatched, however well it is found; Label Studio's converter
#   numbers annotations from 0.
# Version: pycocotools 2.0.11, label-studio-sdk 2.1.2 (converter, COCO)
# Seen: Results that equal the ground truth of two objects: AP 1.0 with ids 1 and 2, AP 0.252 and recall 0.5 with
#   ids 0 and 1. Nothing is printed. (faster-coco-eval 1.8.0 gives the same number, with a warning.)
# Why it matters: One object per file is counted as a false positive and as missed; in a small or per-picture
#   evaluation that decides the result. Number annotations from 1.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    label-studio-sdk==2.1.2 numpy==2.2.6 pillow==13.0.0 opencv-python-headless==4.12.0.88 pycocotools==2.0.11

cat > check.py <<'PY'
import json
import logging
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

from label_studio_sdk.converter import Converter
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools import mask as coco_mask

logging.disable(logging.CRITICAL)
print("label-studio-sdk", version("label-studio-sdk"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def convert(config, tasks, form):
    Path("tasks.json").write_text(json.dumps(tasks))
    Path(form).mkdir(exist_ok=True)
    Converter(config, ".", download_resources=False).convert("tasks.json", form, form, is_dir=False)
    return Path(form)


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


def region(left):
    corners = [[left, 10], [left + 30, 10], [left + 30, 40], [left, 40]]
    return {"type": "polygonlabels", "from_name": "label", "to_name": "image", "original_width": 100,
            "original_height": 100, "value": {"points": corners, "polygonlabels": ["cat"]}}


CONFIG = """<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">
<Label value="cat"/></PolygonLabels></View>"""
result = [region(5), region(50)]
made = {"id": 1, "completed_by": 1, "result": result}
tasks = [{"id": 1, "data": {"image": "/data/local-files/?d=pictures/1.png"}, "annotations": [made]}]
written = json.loads((convert(CONFIG, tasks, "COCO") / "result.json").read_text())["annotations"]
check("annotation ids of the converter", [annotation["id"] for annotation in written], [0, 1])
for first, expected in ((1, (1.0, 1.0)), (0, (0.252, 0.5))):
    annotations = [
        {**part, "id": number, "image_id": 1, "category_id": 1} for number, part in enumerate(written, start=first)
    ]
    results = [
        {"image_id": 1, "category_id": 1, "score": 0.9,
         "segmentation": coco_mask.merge(coco_mask.frPyObjects(part["segmentation"], 100, 100))}
        for part in annotations
    ]
    stats = average_precision(annotations, results)
    seen = round(float(stats[0]), 3), round(float(stats[8]), 3)
    check(f"ids from {first}: AP, recall", seen, expected)
PY
venv/bin/python check.py
