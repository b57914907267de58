#!/usr/bin/env bash
# What: Label Studio's converter turns a rotated rectangle in per cent of the picture for COCO, in pixels for
#   oriented boxes, and not at all for YOLO.
# Version: label-studio-sdk 2.1.2 (converter, COCO, YOLO_OBB and YOLO)
# Seen: A rectangle of 8 by 6 pixels in a picture of 16 by 12, turned by 30 degrees: the corners of YOLO_OBB span
#   9.93 by 9.20 pixels, COCO's box is 10.93 by 8.20, YOLO's still 8 by 6.
# Why it matters: In pictures that are not square the COCO boxes do not enclose what was drawn; take the corners of
#   YOLO_OBB, or compute the box from the JSON export.
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

from label_studio_sdk.converter import Converter

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


WIDTH, HEIGHT = 16, 12
CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="cat"/></RectangleLabels></View>"""
region = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": WIDTH,
          "original_height": HEIGHT, "value": {"x": 40, "y": 20, "width": 50, "height": 50, "rotation": 30,
                                               "rectanglelabels": ["cat"]}}
made = {"id": 1, "completed_by": 1, "result": [region]}
tasks = [{"id": 1, "data": {"image": "/data/local-files/?d=pictures/1.png"}, "annotations": [made]}]

line = (convert(CONFIG, tasks, "YOLO_OBB") / "labels/1.txt").read_text().split()
corners = [float(number) for number in line[1:]]
across, down = [x * WIDTH for x in corners[::2]], [y * HEIGHT for y in corners[1::2]]
spans = round(max(across) - min(across), 2), round(max(down) - min(down), 2)
check("YOLO_OBB, what its corners span", spans, (9.93, 9.2))
box = json.loads((convert(CONFIG, tasks, "COCO") / "result.json").read_text())["annotations"][0]["bbox"]
check("COCO, width and height", (round(box[2], 2), round(box[3], 2)), (10.93, 8.2))
line = (convert(CONFIG, tasks, "YOLO") / "labels/1.txt").read_text().split()
check("YOLO, width and height", (float(line[3]) * WIDTH, float(line[4]) * HEIGHT), (8.0, 6.0))
PY
venv/bin/python check.py
