#!/usr/bin/env bash
# What: Masks decoded by pycocotools and saved with safetensors' NumPy functions come back scrambled, without an
#   error.
# Version: safetensors 0.8.0 (safetensors.numpy), pycocotools 2.0.11
# Seen: pycocotools decodes into Fortran order, and safetensors writes an array's memory as it lies: other pixels
#   are set on reading. The same for flipped and transposed masks. Right after `numpy.ascontiguousarray`.
# Why it matters: A cache or data set of masks is worthless and looks plausible: shape, type and area are right.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    safetensors==0.8.0 pycocotools==2.0.11 numpy==2.4.6

cat > check.py <<'PY'
import numpy as np
import safetensors
from pycocotools import mask as coco_mask
from safetensors.numpy import load, save

print("safetensors", safetensors.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def survives(mask):
    back = load(save({"mask": mask}))["mask"]
    assert back.shape == mask.shape and back.dtype == mask.dtype
    return bool((back == mask).all())


drawn = np.zeros((30, 40), np.uint8)
drawn[5:12, 3:30] = 1
drawn[12:20, 3:6] = 1
decoded = coco_mask.decode(coco_mask.encode(np.asfortranarray(drawn)))
check("decoded as drawn", bool((decoded == drawn).all()), True)
check("saved and read: as drawn", survives(drawn), True)
check("saved and read: decoded", survives(decoded), False)
check("its area is right", int(load(save({"mask": decoded}))["mask"].sum()), int(drawn.sum()))
check("saved and read: flipped", survives(drawn[:, ::-1]), False)
check("saved and read: transposed", survives(drawn.T), False)
check("saved and read: decoded, made contiguous", survives(np.ascontiguousarray(decoded)), True)
PY
venv/bin/python check.py
