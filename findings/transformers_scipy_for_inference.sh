#!/usr/bin/env bash
# What: Transformers' mask classification models cannot be made without SciPy, though only the matching of their
#   training loss uses it.
# Version: transformers 5.23.0 (EoMT, VidEoMT, Mask2Former, MaskFormer, OneFormer)
# Seen: pip installs no SciPy with Transformers. The classes can be imported; making a model raises ImportError of its
#   loss ("EomtLoss requires the scipy library"), also for inference. With SciPy installed, EoMT with its loss taken
#   out gives the same logits. RT-DETR, which matches in the same way, can be made without SciPy.
# Why it matters: An environment for inference needs 100 MB more than the package's requirements say, and a test that
#   stops at the import does not notice. Require scipy yourself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 numpy==2.4.6 pillow==13.0.0

cat > check.py <<'PY'
import sys
from importlib.metadata import version
from importlib.util import find_spec

import torch
import transformers

print("transformers", version("transformers"), "scipy", version("scipy") if find_spec("scipy") else "not installed")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
         "num_queries": 4, "num_blocks": 1, "num_upscale_blocks": 1}


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def making(name):
    kind = getattr(transformers, name)
    try:
        with torch.device("meta"):
            kind(kind.config_class())
    except ImportError as error:
        return str(error).strip().split(" but ")[0]
    return "made"


LOSSES = {
    "EomtForUniversalSegmentation": "EomtLoss",
    "VideomtForUniversalSegmentation": "VideomtLoss",
    "Mask2FormerForUniversalSegmentation": "Mask2FormerLoss",
    "MaskFormerForInstanceSegmentation": "MaskFormerLoss",
    "OneFormerForUniversalSegmentation": "OneFormerLoss",
}
if sys.argv[1] == "without":
    for name, loss in LOSSES.items():
        check(name, making(name), f"{loss} requires the scipy library")
    check("RTDetrForObjectDetection", making("RTDetrForObjectDetection"), "made")
else:
    model = transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**SMALL)).eval()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = model(pixel_values=pixels).masks_queries_logits
        model.criterion = None
        after = model(pixel_values=pixels).masks_queries_logits
    check("EoMT without its loss gives the same masks", torch.equal(before, after), True)
PY
export HF_HUB_OFFLINE=1
venv/bin/python check.py without
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check scipy==1.17.1
venv/bin/python check.py with
