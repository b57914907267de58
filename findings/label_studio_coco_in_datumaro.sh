#!/usr/bin/env bash
# What: The COCO file that Label Studio's converter writes counts everything from 0, and datumaro takes 0 for none:
#   a class loses its name, an object falls in two.
# Version: label-studio-sdk 2.1.2 (converter, COCO), datumaro 1.13.12
# Seen: A cat and a dog: datumaro reads the cat (category 0) without a label, although the class is listed;
#   annotation 0 has no group, so that its polygon and its box are written as two annotations of a category that
#   does not exist.
# Why it matters: The alphabetically first class of a project is gone after any conversion by datumaro. Add 1 to the
#   category and annotation ids in between.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    label-studio-sdk==2.1.2 datumaro==1.13.12 numpy==2.2.6 pillow==12.3.0 opencv-python-headless==4.12.0.88

cat > check.py <<'PY'
import json
import logging
from importlib.metadata import version
from pathlib import Path

import datumaro
from label_studio_sdk.converter import Converter

logging.disable(logging.CRITICAL)
print("label-studio-sdk", version("label-studio-sdk"), "datumaro", version("datumaro"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def convert(config, tasks, form):
    Path("tasks.json").write_text(json.dumps(tasks))
    Path(form).mkdir(exist_ok=True)
    Converter(config, ".", download_resources=False).convert("tasks.json", form, form, is_dir=False)
    return Path(form)


def region(label):
    return {"type": "polygonlabels", "from_name": "label", "to_name": "image", "original_width": 16,
            "original_height": 12, "value": {"points": [[10, 10], [60, 10], [60, 60]], "polygonlabels": [label]}}


CONFIG = """<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">
<Label value="cat"/><Label value="dog"/></PolygonLabels></View>"""
result = [region("cat"), region("dog")]
tasks = [{"id": 1, "data": {"image": "1.png"}, "annotations": [{"id": 1, "completed_by": 1, "result": result}]}]
coco = json.loads((convert(CONFIG, tasks, "COCO") / "result.json").read_text())
check("categories", [(c["id"], c["name"]) for c in coco["categories"]], [(0, "cat"), (1, "dog")])
check("annotation ids", [annotation["id"] for annotation in coco["annotations"]], [0, 1])

folder = Path("data/annotations")
folder.mkdir(parents=True)
Path("data/images/train").mkdir(parents=True)
(folder / "instances_train.json").write_text(json.dumps(coco))
dataset = datumaro.Dataset.import_from("data", "coco_instances")
(item,) = dataset
read = [(type(shape).__name__, shape.label, shape.group) for shape in item.annotations]
check("datumaro, (shape, label, group)", sorted(read, key=str), [
    ("Bbox", 1, 1), ("Bbox", None, 0), ("Polygon", 1, 1), ("Polygon", None, 0)
])
dataset.export("again", "coco_instances")
again = json.loads(Path("again/annotations/instances_train.json").read_text())
check("written again, categories", [(c["id"], c["name"]) for c in again["categories"]], [(1, "cat"), (2, "dog")])
check("written again, categories of the annotations", sorted(a["category_id"] for a in again["annotations"]), [0, 0, 2])
PY
venv/bin/python check.py
