#!/usr/bin/env bash
# What: A metric that is a NumPy number makes a model card that huggingface_hub itself cannot read back.
# Version: huggingface_hub 2.4.0 (EvalResult, ModelCardData)
# Seen: `metric_value=np.float64(0.25)` writes Python object tags of NumPy into the card's YAML, without a warning;
#   `ModelCard.load` and `yaml.safe_load` raise ConstructorError. A Python float is fine.
# Why it matters: Metrics computed with NumPy end up in cards as they are; the card has no readable metadata
#   (licence, tags, results) once it is published. Convert with float() first.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    huggingface_hub==2.4.0 numpy==2.4.6 pyyaml==6.0.4

cat > check.py <<'PY'
from pathlib import Path

import huggingface_hub
import numpy as np
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

print("huggingface_hub", huggingface_hub.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def read_back(value):
    result = EvalResult("image-segmentation", "ade20k", "ADE20K", "mean_iou", value)
    card = ModelCardData(language="en", license="mit", model_name="segmenter", eval_results=[result])
    Path("card.md").write_text(f"---\n{card.to_yaml()}\n---\n# Segmenter\n")
    try:
        return ModelCard.load("card.md").data.eval_results[0].metric_value
    except yaml.constructor.ConstructorError:
        return "ConstructorError"


check("float", read_back(0.25), 0.25)
for kind in (np.float32, np.float64, np.int64):
    check(kind.__name__, read_back(kind(1)), "ConstructorError")
check("float of a NumPy number", read_back(float(np.float64(0.25))), 0.25)
PY
venv/bin/python check.py
