#!/usr/bin/env bash
# What: A 16-bit grey picture becomes a white one on its way to a model: Pillow clips it at 255, and image
#   processors ask Pillow for RGB.
# Version: Pillow 13.0.0, transformers 5.23.0 (SiglipImageProcessorPil, CLIPImageProcessorPil)
# Seen: A ramp from black to white in 16 bits: more than 99 % of the processed values are the largest one; the same
#   ramp in 8 bits uses the whole range.
# Why it matters: Medical, microscope and thermal pictures are classified and segmented as white paper without a
#   word; bring them to 8 bits first.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0

cat > check.py <<'PY'
import io

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

print("Pillow", PIL.__version__, "transformers", transformers.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
file = io.BytesIO()
Image.fromarray(ramp.astype(np.uint16)).save(file, "PNG")
deep, flat = Image.open(file), Image.fromarray((ramp / 257).astype(np.uint8))
check("mode", deep.mode, "I;16")
check("Pillow: 300, 1000 and 65535 as grey of 8 bits", [
    Image.fromarray(np.array([[value]], np.uint16)).convert("L").getpixel((0, 0)) for value in (300, 1000, 65535)
], [255, 255, 255])
for processor in (SiglipImageProcessorPil(), CLIPImageProcessorPil()):
    name = type(processor).__name__
    for picture, what, white in ((deep, "16 bits", True), (flat, "8 bits", False)):
        channel = processor(images=picture, return_tensors="np")["pixel_values"][0, 0]
        share = (channel == channel.max()).mean()
        check(f"{name}, {what}: {share:.1%} are the largest value; nearly all", bool(share > 0.99), white)
PY
venv/bin/python check.py
