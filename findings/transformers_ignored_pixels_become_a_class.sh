#!/usr/bin/env bash
# What: Pixels that a label map marks as ignored (255) become class 254 when labels are reduced; EoMT reduces them
#   without being asked.
# Version: transformers 5.23.0 (Mask2Former, MaskFormer, EoMT; SegFormer for comparison)
# Seen: Classes 0, 1, 2 and 255 with `ignore_index=255`: Mask2Former with `do_reduce_labels=True` returns classes 0,
#   1, 254; EoMT does so as soon as `ignore_index` is set, so that class 0 is lost and all others are one too low.
# Why it matters: The model is trained on a class that is outside of its vocabulary (an index error in the loss, or
#   a wasted query), and EoMT learns every class under its neighbour's name.
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


label_map = np.tile(np.repeat(np.array([0, 1, 2, 255], np.uint8), 8), (32, 1))
picture = np.zeros((32, 32, 3), np.uint8)


def result(name, **options):
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**options)
    return processor(images=[picture], segmentation_maps=[label_map], return_tensors="pt")


same_size = {"size": {"height": 32, "width": 32}}
for name in ("Mask2Former", "MaskFormer"):
    kept = result(name, ignore_index=255, **same_size)["class_labels"][0].tolist()
    check(f"{name}, ignore_index=255", kept, [0, 1, 2])
    reduced = result(name, ignore_index=255, do_reduce_labels=True, **same_size)["class_labels"][0].tolist()
    check(f"{name}, ignore_index=255, do_reduce_labels=True", reduced, [0, 1, 254])
check("EoMT, no option", result("Eomt")["class_labels"][0].tolist(), [0, 1, 2, 255])
check("EoMT, ignore_index=255", result("Eomt", ignore_index=255)["class_labels"][0].tolist(), [0, 1, 254])
labels = result("Segformer", do_reduce_labels=True, **same_size)["labels"]
check("SegFormer, do_reduce_labels=True", sorted(set(labels.flatten().tolist())), [0, 1, 255])
PY
venv/bin/python check.py
