#!/usr/bin/env bash
# What: gradio's AnnotatedImage shows nothing of a mask of 0 and 255.
# Version: gradio 6.31.0 (AnnotatedImage)
# Seen: The mask is multiplied by 255 for its opacity: 0 and 1, booleans and floats up to 1 give 255; a uint8 mask
#   of 0 and 255 wraps around to 1 of 255, without a warning.
# Why it matters: 0 and 255 is what masks in files look like, and what Label Studio and OpenCV give: demos show a
#   picture with a legend and no segment. Pass `mask > 0`.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    gradio==6.31.0 pillow==12.3.0 numpy==2.4.6

cat > check.py <<'PY'
import os

os.environ["GRADIO_TEMP_DIR"] = "files"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio
import numpy as np
from PIL import Image

print("gradio", gradio.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


picture = np.full((20, 30, 3), 100, np.uint8)
inside = np.zeros((20, 30), bool)
inside[5:15, 5:15] = True


def opacity(mask):
    shown = gradio.AnnotatedImage().postprocess((picture, [(mask, "cat")]))
    return int(np.asarray(Image.open(shown.annotations[0].image.path))[10, 10, 3])


check("booleans", opacity(inside), 255)
check("float 0 and 1", opacity(inside.astype(float)), 255)
check("uint8 0 and 1", opacity(inside.astype(np.uint8)), 255)
check("uint8 0 and 255", opacity(inside.astype(np.uint8) * 255), 1)
PY
venv/bin/python check.py
