#!/usr/bin/env bash
# What: The same polygon is up to half as large again from one library to the next.
# Version: pycocotools 2.0.11, rasterio 1.4.4, matplotlib 3.11.2, scikit-image 0.26.0, OpenCV 4.14.0, Pillow 13.0.0
# Seen: A square from 10 to 30: 400 pixels in pycocotools, rasterio and matplotlib, 441 in scikit-image, OpenCV and
#   Pillow. A slanted strip of 106 pixels' area: 106, 106, 159, 162, 162, 162. A diamond is 968 in pycocotools and
#   in rasterio, but 44 of the pixels differ.
# Why it matters: Ground truth that is filled by one library and results by another cannot reach IoU 1: 0.91 for the
#   square, 0.65 for the strip. Rasterise both sides with the library of the evaluation.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    pycocotools==2.0.11 rasterio==1.4.4 matplotlib==3.11.2 scikit-image==0.26.0 \
    opencv-python-headless==4.14.0.94 pillow==13.0.0 numpy==2.4.6

cat > check.py <<'PY'
import cv2
import numpy as np
import rasterio.features
import skimage.draw
from matplotlib.path import Path
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

SIZE = 64


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def by_coco(corners):
    return coco_mask.decode(coco_mask.frPyObjects([np.ravel(corners).tolist()], SIZE, SIZE))[..., 0] > 0


def by_rasterio(corners):
    shape = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    return rasterio.features.rasterize([shape], out_shape=(SIZE, SIZE)) > 0


def by_matplotlib(corners):
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    return Path(corners).contains_points(np.stack([columns.ravel(), rows.ravel()], 1)).reshape(SIZE, SIZE)


def by_scikit_image(corners):
    return skimage.draw.polygon2mask((SIZE, SIZE), np.array(corners)[:, ::-1])


def by_opencv(corners):
    return cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [np.array(corners, np.int32)], 1) > 0


def by_pillow(corners):
    image = Image.new("1", (SIZE, SIZE))
    ImageDraw.Draw(image).polygon(corners, fill=1)
    return np.array(image)


ways = [by_coco, by_rasterio, by_matplotlib, by_scikit_image, by_opencv, by_pillow]
print("in order:", ", ".join(way.__name__[3:] for way in ways))
shapes = {
    "square": ([(10, 10), (30, 10), (30, 30), (10, 30)], [400, 400, 400, 441, 441, 441]),
    "strip": ([(5, 5), (7, 5), (60, 58), (58, 58)], [106, 106, 159, 162, 162, 162]),
    "diamond": ([(32, 10), (54, 32), (32, 54), (10, 32)], [968, 968, 1012, 1013, 1013, 1013]),
}
for name, (corners, pixels) in shapes.items():
    check(name, [int(way(corners).sum()) for way in ways], pixels)
diamond = shapes["diamond"][0]
differ = by_coco(diamond) ^ by_rasterio(diamond)
check("pixels of the diamond in which pycocotools and rasterio differ", int(differ.sum()), 44)
PY
venv/bin/python check.py
