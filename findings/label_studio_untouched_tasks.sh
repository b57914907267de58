#!/usr/bin/env bash
# What: Label Studio's conversions export pictures that nobody has looked at as pictures without objects, and leave
#   out those that were skipped.
# Version: label-studio-sdk 2.1.2 (converter, COCO and YOLO)
# Seen: Four tasks: annotated, found empty, never opened, skipped. COCO lists the first three, the never opened one
#   just like the empty one (width and height null); YOLO writes an empty label file for both. Predictions are never
#   exported.
# Why it matters: Half-finished projects train and score a model against objects that are there but not annotated
#   yet; filter tasks by their annotations before converting.
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


CONFIG = """<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">
<Label value="cat"/></PolygonLabels></View>"""
polygon = {"type": "polygonlabels", "from_name": "label", "to_name": "image", "original_width": 16,
           "original_height": 12, "value": {"points": [[10, 10], [60, 10], [60, 60]], "polygonlabels": ["cat"]}}


def task(number, name, annotations):
    return {"id": number, "data": {"image": f"/data/local-files/?d=pictures/{name}.png"}, "annotations": annotations,
            "predictions": [{"result": [polygon]}]}


tasks = [
    task(1, "annotated", [{"id": 1, "completed_by": 1, "result": [polygon]}]),
    task(2, "empty", [{"id": 2, "completed_by": 1, "result": []}]),
    task(3, "never_opened", []),
    task(4, "skipped", [{"id": 4, "completed_by": 1, "result": [], "was_cancelled": True}]),
]
coco = json.loads((convert(CONFIG, tasks, "COCO") / "result.json").read_text())
names = [Path(image["file_name"]).stem for image in coco["images"]]
check("COCO, pictures", names, ["annotated", "empty", "never_opened"])
check("COCO, their widths", [image["width"] for image in coco["images"]], [16, None, None])
check("COCO, annotations", len(coco["annotations"]), 1)
sizes = {file.stem: file.stat().st_size > 0 for file in sorted((convert(CONFIG, tasks, "YOLO") / "labels").glob("*"))}
expected = {"annotated": True, "empty": False, "never_opened": False}
check("YOLO, label files and whether they hold lines", sizes, expected)
PY
venv/bin/python check.py
