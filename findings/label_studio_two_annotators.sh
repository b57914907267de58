#!/usr/bin/env bash
# What: Where two people annotated one picture, Label Studio's COCO has the picture twice, and its YOLO keeps the
#   older annotation only.
# Version: label-studio-sdk 2.1.2 (converter)
# Seen: An annotation of March with two objects after one of January with one: COCO lists two images of the same
#   file name with two and one annotations; the YOLO label file holds January's single object.
# Why it matters: A review that corrects an annotation is undone by the YOLO export; in COCO each model result must
#   be matched with two ground truths, one of which it misses.
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
<Label value="cat"/><Label value="dog"/></PolygonLabels></View>"""


def polygon(label, right):
    return {"type": "polygonlabels", "from_name": "label", "to_name": "image", "original_width": 16,
            "original_height": 12, "value": {"points": [[10, 10], [right, 10], [right, 60]], "polygonlabels": [label]}}


first = {"id": 1, "completed_by": 1, "created_at": "2026-01-05T10:00:00Z", "result": [polygon("cat", 60)]}
review = {"id": 2, "completed_by": 2, "created_at": "2026-03-05T10:00:00Z",
          "result": [polygon("cat", 60), polygon("dog", 90)]}
for order in ([first, review], [review, first]):
    tasks = [{"id": 1, "data": {"image": "/data/local-files/?d=pictures/picture.png"}, "annotations": order}]
    coco = json.loads((convert(CONFIG, tasks, "COCO") / "result.json").read_text())
    names = [image["file_name"] for image in coco["images"]]
    check("COCO, images and different file names", (len(names), len(set(names))), (2, 1))
    check("COCO, image of each annotation", [annotation["image_id"] for annotation in coco["annotations"]], [0, 0, 1])
    labels = (convert(CONFIG, tasks, "YOLO") / "labels/picture.txt").read_text().split("\n")
    check("YOLO, classes in the label file (0 cat, 1 dog)", [line[0] for line in labels if line], ["0"])
PY
venv/bin/python check.py
