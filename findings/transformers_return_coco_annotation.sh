#!/usr/bin/env bash
# What: `return_coco_annotation=True` does not return COCO's run lengths, nor one entry for each segment.
# Version: transformers 5.23.0 (Mask2Former and MaskFormer)
# Seen: Lists of start, length, start, length..., counted from 1, row by row, without a size; one for each value of
#   the map in ascending order: background first where there is any, none for a segment that others cover.
# Why it matters: pycocotools wants lengths only, column by column, from background on. And `zip(segments_info,
#   segmentation)` pairs every segment with the mask of another.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0

cat > check.py <<'PY'
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from transformers import Mask2FormerImageProcessorPil

print("transformers", transformers.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def outputs(queries, size=16, classes=3):
    """What a model would return: for each query its class, where its mask is, and how sure it is of the class."""
    labels = torch.full((1, len(queries), classes + 1), -10.0)
    masks = torch.full((1, len(queries), size, size), -10.0)
    for number, (label, place, certainty) in enumerate(queries):
        labels[0, number, label] = certainty
        masks[0, number][place] = 10.0
    return SimpleNamespace(class_queries_logits=labels, masks_queries_logits=masks, patch_offsets=None)


def runs(queries):
    result = processor.post_process_instance_segmentation(
        outputs(queries), target_sizes=[(16, 16)], return_coco_annotation=True
    )[0]
    return [[int(number) for number in entry] for entry in result["segmentation"]], result["segments_info"]


def drawn(entry):
    flat = np.zeros(256, bool)
    for start, length in zip(entry[::2], entry[1::2]):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(16, 16)


processor = Mask2FormerImageProcessorPil()
small, large = (slice(4, 8), slice(4, 8)), (slice(2, 10), slice(2, 10))
entries, segments = runs([(0, small, 10.0)])
check("one segment: entries, segments", (len(entries), len(segments)), (2, 1))
check("the first entry is the background", bool(drawn(entries[0])[0, 0]), True)
check("the second is the mask, row by row from 1", entries[1], [70, 3, 85, 4, 101, 4, 117, 4])

entries, segments = runs([(0, small, 10.0), (1, large, 5.0)])
check("one of two covered: entries, segments", (len(entries), len(segments)), (2, 2))

whole = (slice(0, 16), slice(0, 16))
entries, segments = runs([(0, whole, 10.0)])
check("no background: entries, segments", (len(entries), len(segments)), (1, 1))
check("its entry (COCO's lengths would be 0, 256)", entries[0], [1, 256])
PY
venv/bin/python check.py
