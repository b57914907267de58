#!/usr/bin/env bash
# What: torchmetrics' panoptic quality does not count a target segment as missed where the prediction says nothing.
# Version: torchmetrics 1.9.0 (detection.PanopticQuality, allow_unknown_preds_category=True)
# Seen: Two objects and a background; a prediction that leaves one object blank scores 1.0, and so does one that
#   also leaves the background blank. The same object labelled as another class: 0.56.
# Why it matters: A model that labels only what it is sure of gets a perfect score. In the definition of panoptic
#   quality only the ground truth's unlabelled pixels are excluded; count the target's segments beside it.
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
from torchmetrics.detection import PanopticQuality

print("torchmetrics", torchmetrics.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


PERSON, ROAD, GRASS, BLANK = 0, 6, 7, 255


def picture(*bands):
    """Ten rows; (rows, class, instance) from top to bottom."""
    rows = [(label, instance) for count, label, instance in bands for _ in range(count)]
    return torch.tensor(rows)[None, :, None].expand(1, 10, 10, 2).clone()


def quality(prediction):
    metric = PanopticQuality(things={PERSON}, stuffs={ROAD, GRASS}, allow_unknown_preds_category=True)
    metric.update(prediction, target.clone())
    missed = int(metric.false_negatives.sum())
    return round(metric.compute().item(), 2), missed


target = picture((4, PERSON, 1), (3, PERSON, 2), (3, ROAD, 0))
check("all right: quality, missed", quality(target.clone()), (1.0, 0))
check("second person blank", quality(picture((4, PERSON, 1), (3, BLANK, 0), (3, ROAD, 0))), (1.0, 0))
check("second person and road blank", quality(picture((4, PERSON, 1), (6, BLANK, 0))), (1.0, 0))
check("second person labelled grass", quality(picture((4, PERSON, 1), (3, GRASS, 0), (3, ROAD, 0))), (0.56, 1))
PY
venv/bin/python check.py
