#!/usr/bin/env bash
# What: The numbers that CVAT's SDK makes of a mask end with inclusive corners, while its own bbox argument is
#   exclusive and CVAT's XML has left, top, width and height.
# Version: cvat-sdk 2.80.0 (cvat_sdk.masks)
# Seen: A mask in columns 1 to 3 and rows 2 to 3, given bbox 1, 2, 4, 4: the list ends with 1, 2, 3, 3. The width is
#   x2 - x1 + 1. A uint8 mask is refused.
# Why it matters: Code that takes the corners for exclusive shears every row of the mask by a pixel; masks that
#   travel between the XML and the API need the conversion.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    cvat-sdk[masks]==2.80.0 numpy==2.4.6

cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
from cvat_sdk.masks import decode_mask, encode_mask

print("cvat-sdk", version("cvat-sdk"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


mask = np.zeros((6, 8), bool)
mask[2, 1:3] = True
mask[3, 1:4] = True
points = encode_mask(mask, [1, 2, 4, 4])
check("run lengths, background first, row by row", points[:-4], [0, 2, 1, 3])
check("corners", points[-4:], [1, 2, 3, 3])
check("the same without bbox", encode_mask(mask), points)
check("decoded", bool((decode_mask(points, image_width=8, image_height=6) == mask).all()), True)

runs, (left, top, right, bottom) = points[:-4], points[-4:]
flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
check("pixels of the box with inclusive corners", (right - left + 1) * (bottom - top + 1), len(flat))
check("rows of that width", flat.reshape(-1, right - left + 1).astype(int).tolist(), [[1, 1, 0], [1, 1, 1]])
try:
    encode_mask(mask.astype(np.uint8))
    outcome = "accepted"
except ValueError:
    outcome = "ValueError"
check("a uint8 mask", outcome, "ValueError")
PY
venv/bin/python check.py
