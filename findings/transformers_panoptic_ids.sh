#!/usr/bin/env bash
# What: What `post_process_panoptic_segmentation` calls nothing, and where ids begin, differs between models of one
#   library, and between pictures.
# Version: transformers 5.23.0
# Seen: Mask2Former: ids from 1 in an int32 map, pixels that no mask claims go to some segment; if no segment is
#   kept at all, a float32 map of -1. EoMT: ids from 0 in an int64 map, unclaimed pixels -1.
# Why it matters: `segmentation == 0` is the background of one model and the first segment of another; a count of
#   labelled pixels says nothing for Mask2Former; a cast to an unsigned type turns pictures without segments into id
#   255.
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

import torch
import transformers
from transformers import EomtImageProcessorPil, Mask2FormerImageProcessorPil

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


def panoptic(processor, queries):
    return processor.post_process_panoptic_segmentation(outputs(queries), target_sizes=[(16, 16)])[0]


def ids(result):
    return [segment["id"] for segment in result["segments_info"]]


rows = slice(0, 16)
stripes = [(0, (slice(0, 4), rows), 10.0), (1, (slice(4, 8), rows), 10.0)]  # the lower half belongs to no mask
nothing = [(3, (slice(0, 4), rows), 10.0)]  # the class after the last: no object
mask2former, eomt = Mask2FormerImageProcessorPil(), EomtImageProcessorPil()
for name, processor, first, dtype, unclaimed in (
    ("Mask2Former", mask2former, 1, torch.int32, 0),
    ("EoMT", eomt, 0, torch.int64, 128),
):
    result = panoptic(processor, stripes)
    check(f"{name}, ids", ids(result), [first, first + 1])
    check(f"{name}, type", result["segmentation"].dtype, dtype)
    outside = ~torch.isin(result["segmentation"], torch.tensor(ids(result)))
    check(f"{name}, pixels of no segment (128 are claimed by no mask)", int(outside.sum()), unclaimed)
    empty = panoptic(processor, nothing)
    check(f"{name}, no segment: type", empty["segmentation"].dtype, torch.float32)
    check(f"{name}, no segment: values", empty["segmentation"].unique().tolist(), [-1.0])
PY
venv/bin/python check.py
