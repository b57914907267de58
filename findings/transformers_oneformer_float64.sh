#!/usr/bin/env bash
# What: OneFormer holds one weight in float64, and loading it in another type leaves that weight as it is.
# Version: transformers 5.23.0
# Seen: `criterion.logit_scale`, made from a NumPy number, is float64 in a new model and after
#   `from_pretrained(dtype=torch.float32)` or `torch.bfloat16`; all others follow.
# Why it matters: devices without float64 (Apple's GPUs) refuse to take the model, though it is a weight of the training
#   loss that inference never reads. `model.float()` before moving it mends that.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 numpy==2.4.6 scipy==1.17.1

cat > check.py <<'PY'
import torch
import transformers
from transformers import OneFormerConfig, OneFormerForUniversalSegmentation, SwinConfig

print("transformers", transformers.__version__)
SCALE = "criterion.logit_scale"


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def doubles(model):
    return [name for name, weight in model.named_parameters() if weight.dtype == torch.float64]


stages = ["stage1", "stage2", "stage3", "stage4"]
shape = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2, "image_size": 32, "patch_size": 4}
sizes = {
    "hidden_dim": 32, "conv_dim": 32, "mask_dim": 32, "num_attention_heads": 2, "num_queries": 4,
    "encoder_feedforward_dim": 16, "dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 2,
    "text_encoder_width": 16, "text_encoder_num_layers": 1, "text_encoder_vocab_size": 32,
    "text_encoder_context_length": 8, "text_encoder_n_ctx": 2, "max_seq_len": 8, "task_seq_len": 8,
}
config = OneFormerConfig(backbone_config=SwinConfig(**shape, out_features=stages), **sizes)
model = OneFormerForUniversalSegmentation(config)
check("float64 in a new model", doubles(model), [SCALE])
model.save_pretrained("model")
for dtype in (torch.float32, torch.bfloat16):
    loaded = OneFormerForUniversalSegmentation.from_pretrained("model", dtype=dtype)
    check(f"float64 after loading as {dtype}", doubles(loaded), [SCALE])
check("float64 after model.float()", doubles(loaded.float()), [])
PY
venv/bin/python check.py
