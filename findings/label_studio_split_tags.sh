#!/usr/bin/env bash
# What: Regions of split tags (Brush or Polygon with a separate Labels tag) are lost in Label Studio's COCO and YOLO
#   conversions, although it offers these formats for such a project.
# Version: label-studio-sdk 2.1.2 (converter)
# Seen: One brush mask, one polygon and one rectangle, each with its label from a Labels tag: BRUSH_TO_COCO, COCO
#   and YOLO hold the rectangle only; no error. BRUSH_TO_NUMPY holds the brush mask.
# Why it matters: A project that uses the split tags, as is usual where one set of labels serves several tools,
#   exports a data set without its masks.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    label-studio-sdk==2.1.2 numpy==2.2.6 pillow==13.0.0 opencv-python-headless==4.12.0.88

cat > check.py <<'PY'
import json
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter, brush

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


CONFIG = """<View><Image name="image" value="$image"/><Brush name="brush" toName="image"/>
<Polygon name="polygon" toName="image"/><Rectangle name="rectangle" toName="image"/>
<Labels name="label" toName="image"><Label value="cat"/></Labels></View>"""
mask = np.zeros((12, 16), np.uint8)
mask[2:9, 3:12] = 255
shapes = {
    "brush": {"format": "rle", "rle": brush.mask2rle(mask)},
    "polygon": {"points": [[10, 10], [60, 10], [60, 60]], "closed": True},
    "rectangle": {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0},
}
regions = []
for tool, value in shapes.items():  # as Label Studio writes them: two results with the same id
    common = {"id": tool, "to_name": "image", "original_width": 16, "original_height": 12, "image_rotation": 0}
    regions.append({**common, "type": tool, "from_name": tool, "value": value})
    regions.append({**common, "type": "labels", "from_name": "label", "value": {**value, "labels": ["cat"]}})
made = {"id": 1, "completed_by": 1, "result": regions}
tasks = [{"id": 1, "data": {"image": "/data/local-files/?d=pictures/1.png"}, "annotations": [made]}]

offered = Converter(CONFIG, ".").supported_formats
check("offered", [form in offered for form in ("BRUSH_TO_COCO", "COCO", "YOLO")], [True, True, True])
for form, file in (("BRUSH_TO_COCO", "result_coco.json"), ("COCO", "result.json")):
    coco = json.loads((convert(CONFIG, tasks, form) / file).read_text())
    check(f"{form}, polygons of its annotations", [part["segmentation"] for part in coco["annotations"]], [[]])
lines = (convert(CONFIG, tasks, "YOLO") / "labels/1.txt").read_text().split("\n")
check("YOLO, lines", [line for line in lines if line], ["0 0.35 0.35 0.5 0.5"])
check("BRUSH_TO_NUMPY, files", len(list(convert(CONFIG, tasks, "BRUSH_TO_NUMPY").glob("*.npy"))), 1)
PY
venv/bin/python check.py
