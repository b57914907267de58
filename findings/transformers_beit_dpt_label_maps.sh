#!/usr/bin/env bash
# What: The image processors of BEiT and DPT resize label maps like photographs, with bicubic interpolation.
# Version: transformers 5.23.0 (BeitImageProcessorPil, DPTImageProcessorPil; others for comparison)
# Seen: A map of the classes 0, 1, 200 and 255, resized from 32 to 24 pixels, comes back with nine different values,
#   among them 8, 193 and 253.
# Why it matters: Boundaries of every training sample get classes that nobody annotated, and the ignored value 255
#   bleeds into neighbours; resize label maps yourself before the processor, or pass `resample=0` for them.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0

cat > check.py <<'PY'
import numpy as np
import transformers

print("transformers", transformers.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


label_map = np.tile(np.repeat(np.array([0, 1, 200, 255], np.uint8), 8), (32, 1))
picture = np.zeros((32, 32, 3), np.uint8)


def classes(name, **options):
    processor = getattr(transformers, f"{name}ImageProcessorPil")(size={"height": 24, "width": 24}, **options)
    result = processor(images=[picture], segmentation_maps=[label_map], return_tensors="np")
    return np.unique(result["labels"][0]).tolist()


invented = [0, 1, 8, 193, 200, 201, 202, 253, 255]
check("BEiT", classes("Beit"), invented)
check("DPT", classes("DPT"), invented)
check("SegFormer", classes("Segformer"), [0, 1, 200, 255])
check("BEiT with resample=0 (nearest), for pictures, too", classes("Beit", resample=0), [0, 1, 200, 255])
PY
venv/bin/python check.py
