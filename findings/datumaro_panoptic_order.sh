#!/usr/bin/env bash
# What: datumaro paints panoptic COCO in the order of its list, other label maps by z_order, and calls every class
#   stuff.
# Version: datumaro 1.13.12 (coco_panoptic; cityscapes for comparison)
# Seen: Two overlapping masks, the first with the higher z_order: Cityscapes shows the first on top, the panoptic
#   PNG the second. `isthing` is 0 for both classes, also where the file that was read says 1.
# Why it matters: One data set gives contradicting label maps, and a panoptic quality of things and stuff apart
#   counts no things. Sort annotations by z_order first, restore isthing afterwards.
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
from importlib.metadata import version
from pathlib import Path

import datumaro
import numpy as np
from datumaro.components.annotation import Mask
from PIL import Image

logging.disable(logging.CRITICAL)
print("datumaro", version("datumaro"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


cat, dog = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
cat[:4, :4], dog[2:, 2:] = 1, 1
picture = datumaro.Image.from_numpy(np.zeros((6, 8, 3), np.uint8))
shapes = [Mask(cat, label=0, z_order=5), Mask(dog, label=1, z_order=0)]
item = datumaro.DatasetItem("a", media=picture, annotations=shapes)
dataset = datumaro.Dataset.from_iterable([item], categories=["cat", "dog"])

dataset.export("cityscapes", "cityscapes")
labels = np.asarray(Image.open(next(Path("cityscapes").rglob("*_labelIds.png"))))
check("Cityscapes: the overlap is the cat's", bool(labels[3, 3] == labels[0, 0]), True)

dataset.export("coco", "coco_panoptic")
segments = np.asarray(Image.open("coco/annotations/panoptic_default/a.png"))[..., 0]
check("panoptic: the overlap is the dog's", bool(segments[3, 3] == segments[5, 7]), True)

file = Path("coco/annotations/panoptic_default.json")
panoptic = json.loads(file.read_text())
check("isthing", [category["isthing"] for category in panoptic["categories"]], [0, 0])
for category in panoptic["categories"]:
    category["isthing"] = 1
file.write_text(json.dumps(panoptic))
datumaro.Dataset.import_from("coco", "coco_panoptic").export("again", "coco_panoptic")
again = json.loads(Path("again/annotations/panoptic_default.json").read_text())
check("isthing, of 1 read and written again", [category["isthing"] for category in again["categories"]], [0, 0])
PY
venv/bin/python check.py
