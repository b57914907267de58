#!/usr/bin/env bash
# What: A label map stored as a palette PNG is read as class ids by two libraries and as colours by four.
# Version: Pillow 13.0.0, rasterio 1.4.4, imageio 2.38.1, scikit-image 0.26.0, OpenCV 4.14.0, matplotlib 3.11.2
# Seen: Classes 0, 5, 200, 255: Pillow and rasterio return them. imageio and scikit-image return RGB, OpenCV BGR
#   even with IMREAD_UNCHANGED, with IMREAD_GRAYSCALE a grey of the colours (74, 79, 113, 126) that looks like class
#   ids; matplotlib returns RGBA as floats.
# Why it matters: VOC, DAVIS and many exports are palette PNGs; with OpenCV's grey reading a training runs without
#   complaint on invented classes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    pillow==13.0.0 rasterio==1.4.4 imageio==2.38.1 scikit-image==0.26.0 \
    opencv-python-headless==4.14.0.94 matplotlib==3.11.2 numpy==2.4.6

cat > check.py <<'PY'
import warnings

warnings.simplefilter("ignore")
import cv2
import imageio.v3
import matplotlib.image
import numpy as np
import rasterio
import skimage.io
from PIL import Image


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


labels = np.zeros((64, 64), np.uint8)
labels[:20], labels[20:40, :30], labels[50:, 40:] = 200, 5, 255
picture = Image.fromarray(labels)
picture.putpalette([(37 * index + 91 * channel) % 256 for index in range(256) for channel in range(3)])
picture.save("labels.png")

classes = [0, 5, 200, 255]
check("Pillow", np.unique(Image.open("labels.png")).tolist(), classes)
check("rasterio", np.unique(rasterio.open("labels.png").read(1)).tolist(), classes)
check("imageio", imageio.v3.imread("labels.png").shape, (64, 64, 3))
check("scikit-image", skimage.io.imread("labels.png").shape, (64, 64, 3))
check("OpenCV, IMREAD_UNCHANGED", cv2.imread("labels.png", cv2.IMREAD_UNCHANGED).shape, (64, 64, 3))
grey = cv2.imread("labels.png", cv2.IMREAD_GRAYSCALE)
check("OpenCV, IMREAD_GRAYSCALE", np.unique(grey).tolist(), [74, 79, 113, 126])
read = matplotlib.image.imread("labels.png")
check("matplotlib", (read.shape, str(read.dtype)), ((64, 64, 4), "float32"))
PY
venv/bin/python check.py
