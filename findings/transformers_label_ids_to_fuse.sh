#!/usr/bin/env bash
# What: `label_ids_to_fuse` makes segments of other classes share an id.
# Version: transformers 5.23.0 (Mask2Former and MaskFormer)
# Seen: Sky, person, sky, cat with sky fused: ids 1, 2, 1, 2. The cat has the person's id, the map holds two
#   segments for three classes.
# Why it matters: Stuff is fused in every panoptic evaluation. What comes after the second part of a fused class is
#   merged with an earlier segment in the map, and cannot be told from it afterwards; fuse by class yourself.
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
from transformers import MaskFormerImageProcessorPil, Mask2FormerImageProcessorPil

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


sky, person, cat = 0, 1, 2
left, right, all_columns = slice(0, 8), slice(8, 16), slice(0, 16)
picture = outputs(
    [
        (sky, (slice(0, 4), left), 10.0),
        (person, (slice(4, 8), all_columns), 10.0),
        (sky, (slice(0, 4), right), 10.0),
        (cat, (slice(8, 16), all_columns), 10.0),
    ]
)
for processor in (Mask2FormerImageProcessorPil(), MaskFormerImageProcessorPil()):
    name = type(processor).__name__
    result = processor.post_process_panoptic_segmentation(picture, label_ids_to_fuse={sky}, target_sizes=[(16, 16)])[0]
    found = [(segment["id"], segment["label_id"]) for segment in result["segments_info"]]
    check(f"{name}, (id, class)", found, [(1, sky), (2, person), (1, sky), (2, cat)])
    check(f"{name}, ids in the map", result["segmentation"].unique().tolist(), [1, 2])
    check(f"{name}, id in the person's and the cat's middle", result["segmentation"][[6, 12], 8].tolist(), [2, 2])
PY
venv/bin/python check.py
