#!/usr/bin/env bash
# What: Instance post-processing paints later queries over earlier ones whatever their scores, still lists those
#   that are gone, and supervision makes detections without a pixel of them.
# Version: transformers 5.23.0 with supervision 0.31.2
# Seen: A small sure object inside a larger unsure one, found first: the map (float32, ids from 0, -1 is nothing)
#   has no pixel of id 0, segments_info lists it with its score of 0.97 before the other's 0.70;
#   `Detections.from_transformers` returns it with an empty mask and the box 0, 0, 0, 0.
# Why it matters: Counts of objects are too high, boxes in the picture's corner are false positives with a high
#   score, and small objects vanish; use `return_binary_maps=True` or drop empty masks.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0 supervision==0.31.2

cat > check.py <<'PY'
import warnings
from types import SimpleNamespace

warnings.simplefilter("ignore")
import supervision
import torch
import transformers
from transformers import Mask2FormerImageProcessorPil

print("transformers", transformers.__version__, "supervision", supervision.__version__)


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


small, large = (slice(4, 8), slice(4, 8)), (slice(2, 10), slice(2, 10))
picture = outputs([(0, small, 10.0), (1, large, -8.0)])
processor = Mask2FormerImageProcessorPil()
result = processor.post_process_instance_segmentation(picture, target_sizes=[(16, 16)])[0]
check("type of the map", result["segmentation"].dtype, torch.float32)
check("values of the map", result["segmentation"].unique().tolist(), [-1.0, 1.0])
check("ids listed", [segment["id"] for segment in result["segments_info"]], [0, 1])
check("their scores", [round(segment["score"], 1) for segment in result["segments_info"]], [1.0, 0.7])

detections = supervision.Detections.from_transformers(result)
check("detections", len(detections), 2)
check("pixels of the first", int(detections.mask[0].sum()), 0)
check("box of the first", detections.xyxy[0].tolist(), [0, 0, 0, 0])

maps = processor.post_process_instance_segmentation(picture, target_sizes=[(16, 16)], return_binary_maps=True)[0]
check("with return_binary_maps, both have pixels", bool((maps["segmentation"].sum((1, 2)) > 0).all()), True)
PY
venv/bin/python check.py
