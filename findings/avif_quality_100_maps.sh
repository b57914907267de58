#!/usr/bin/env bash
# What: An AVIF of quality 100 keeps the values of a grey map and changes those of a map of colours, and nothing that
#   Pillow tells of either file says which.
# Version: Pillow 12.3.0
# Seen: A map of 5 classes in 8x8 blocks: as grey values no pixel changes, as colours of COCO's panoptic form some do
#   with `quality=100`, with `subsampling="4:4:4"`, too. `info` of the opened file is empty for all.
# Why it matters: A reader of maps cannot refuse the harmful ones as it can for JPEG and WebP (whose chunks are named
#   apart); it can only warn. Save maps as PNG.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check pillow==12.3.0 numpy==2.4.6

cat > check.py <<'PY'
import io
from importlib.metadata import version

import numpy as np
from PIL import Image

print("Pillow", version("pillow"))
COLORS = np.array([[0, 0, 0], [17, 3, 0], [201, 90, 1], [33, 250, 0], [129, 12, 7]], np.uint8)
classes = np.random.default_rng(0).integers(0, 5, (8, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)


def saved(picture, **options):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "AVIF", **options)
    image = Image.open(io.BytesIO(stream.getvalue()))
    info = sorted(image.info)  # before decoding
    found = np.asarray(image.convert("L" if picture.ndim == 2 else "RGB"))
    changed = found != picture
    return bool(changed.any()), info


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


keys = []
check("grey, quality 100: changed, info", saved(classes, quality=100), (False, keys))
check("grey, quality 75: changed, info", saved(classes, quality=75), (True, keys))
check("colours, quality 100: changed, info", saved(COLORS[classes], quality=100), (True, keys))
check(
    "colours, quality 100, 4:4:4: changed, info",
    saved(COLORS[classes], quality=100, subsampling="4:4:4"),
    (True, keys),
)
PY
venv/bin/python check.py
