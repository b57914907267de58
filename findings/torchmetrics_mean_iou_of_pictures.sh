#!/usr/bin/env bash
# What: torchmetrics' segmentation MeanIoU is the mean over pictures of each picture's IoU, not the IoU of the data
#   set's pixels.
# Version: torchmetrics 1.9.0 (segmentation.MeanIoU; classification.MulticlassJaccardIndex for comparison)
# Seen: A picture with a large object found exactly and one with a small object found half: MeanIoU 0.847, the IoU
#   over all pixels 0.893. Pixels labelled 255 are an error; there is no ignore_index.
# Why it matters: Published mIoU (VOC, ADE20K, Cityscapes) is over all pixels of the data set; numbers of the two
#   cannot be compared, and rare classes weigh differently. Use MulticlassJaccardIndex.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6

cat > check.py <<'PY'
import torch
import torchmetrics
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

print("torchmetrics", torchmetrics.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


target = torch.zeros(2, 10, 10, dtype=torch.long)
found = target.clone()
target[0, :5], found[0, :5] = 1, 1
target[1, :1], found[1, :2] = 1, 1
over_pictures = MeanIoU(num_classes=2, input_format="index")
over_pixels = MulticlassJaccardIndex(num_classes=2, average="macro", ignore_index=255)


def value(metric, *pair):
    metric.reset()
    metric.update(*pair)
    return round(metric.compute().item(), 3)


def by_definition():
    classes = [((found == c) & (target == c)).sum() / ((found == c) | (target == c)).sum() for c in (0, 1)]
    return round((sum(classes) / 2).item(), 3)


check("MeanIoU", value(over_pictures, found, target), 0.847)
check("MulticlassJaccardIndex", value(over_pixels, found, target), 0.893)
check("by the definition", by_definition(), 0.893)
ignored = target.clone()
ignored[0, 9, 9] = 255
check("MulticlassJaccardIndex with an ignored pixel", value(over_pixels, found, ignored), 0.893)
try:
    value(over_pictures, found, ignored)
    outcome = "a number"
except RuntimeError:
    outcome = "RuntimeError"
check("MeanIoU with an ignored pixel", outcome, "RuntimeError")
PY
venv/bin/python check.py
