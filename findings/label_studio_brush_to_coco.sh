#!/usr/bin/env bash
# What: Label Studio's own conversion of brush masks to COCO changes the masks.
# Version: label-studio-sdk 2.1.2 (converter, BRUSH_TO_COCO), pycocotools 2.0.11
# Seen: Of a 9 by 7 block with a hole (57 pixels) remains a polygon of 48 pixels without the hole; a region of a
#   dot, a stroke one pixel wide and a 2 by 2 square (13 pixels) becomes a polygon of 1 pixel; a region of two
#   squares becomes two annotations.
# Why it matters: Ground truth exported in this way loses thin things altogether, half a pixel all around and every
#   hole, and counts objects in parts more than once; BRUSH_TO_NUMPY keeps the masks as drawn.
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
from importlib.metadata import version
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter, brush
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


HEIGHT, WIDTH = 12, 16
CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image">
<Label value="cat"/></BrushLabels></View>"""


def region(mask):
    return {"type": "brushlabels", "from_name": "label", "to_name": "image", "original_width": WIDTH,
            "original_height": HEIGHT, "value": {"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": ["cat"]}}


def converted(mask):
    made = {"id": 1, "completed_by": 1, "result": [region(mask)]}
    task = {"id": 1, "data": {"image": "/data/local-files/?d=pictures/1.png"}, "annotations": [made]}
    coco = json.loads((convert(CONFIG, [task], "BRUSH_TO_COCO") / "result_coco.json").read_text())
    polygons = [annotation["segmentation"] for annotation in coco["annotations"]]
    return [int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(parts, HEIGHT, WIDTH)))) for parts in polygons]


block = np.zeros((HEIGHT, WIDTH), np.uint8)
block[2:9, 3:12] = 255
block[4:6, 5:8] = 0
check("pixels of a block with a hole", int((block > 0).sum()), 57)
check("pixels of its annotations", converted(block), [48])

thin = np.zeros((HEIGHT, WIDTH), np.uint8)
thin[1, 1], thin[5:7, 2:4], thin[10, 4:12] = 255, 255, 255
check("pixels of a dot, a square and a stroke", int((thin > 0).sum()), 13)
check("pixels of their annotations", converted(thin), [1])

parts = np.zeros((HEIGHT, WIDTH), np.uint8)
parts[1:5, 1:5], parts[6:11, 8:14] = 255, 255
check("annotations of one region of two squares", len(converted(parts)), 2)
kept = np.load(next(convert(CONFIG, json.loads(Path("tasks.json").read_text()), "BRUSH_TO_NUMPY").glob("*.npy")))
check("BRUSH_TO_NUMPY keeps the mask", bool((kept == parts).all()), True)
PY
venv/bin/python check.py
