#!/usr/bin/env bash
# What: WebP masks grow, and instance maps lose ids in WebP, AVIF and GIF without a word.
# Version: Pillow 13.0.0
# Seen: A mask of 0 and 255 saved as WebP has 32 values (quality 80, the default) or 110 (quality 10); 4 % or 90 % more
#   pixels than the mask's are not 0, while those above 127 are exactly the mask. Lossless WebP keeps it, as RGB. Ids
#   of a 16-bit map above 255 become 255 in lossless WebP and in AVIF, one index in GIF; PNG keeps them, JPEG refuses.
# Why it matters: `mask > 0` or `mask != 0`, usual for masks, is wrong for a lossy one, and instances numbered from 256
#   merge. Save masks as PNG; compare with 127 what came as lossy WebP.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check pillow==13.0.0 numpy==2.4.6

cat > check.py <<'PY'
from importlib.metadata import version
from io import BytesIO

import numpy as np
from PIL import Image

print("Pillow", version("pillow"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def saved(picture, form, **options):
    file = BytesIO()
    try:
        Image.fromarray(picture).save(file, form, **options)
    except OSError:
        return "refused"
    return np.asarray(Image.open(file))


y, x = np.mgrid[:480, :640]
mask = ((x - 300) / 180) ** 2 + ((y - 240) / 120) ** 2 < 1
mask[60:140, 440:560] = True
for quality, expected in ((80, (32, 4, 0)), (10, (110, 90, 0))):
    values = saved((mask * 255).astype(np.uint8), "WEBP", quality=quality)[..., 0]
    more = round(100 * (np.count_nonzero(values) / mask.sum() - 1))
    wrong = int(((values > 127) != mask).sum())
    seen = len(np.unique(values)), more, wrong
    check(f"quality {quality}: values, % more pixels above 0, pixels wrong above 127", seen, expected)
default = saved((mask * 255).astype(np.uint8), "WEBP")
check("values without options", len(np.unique(default[..., 0])), 32)
lossless = saved((mask * 255).astype(np.uint8), "WEBP", lossless=True)
check("lossless: shape, values", (lossless.shape, np.unique(lossless).tolist()), ((480, 640, 3), [0, 255]))

ids = np.array([[0, 1, 2, 255], [256, 300, 1000, 26001]], np.uint16)
for form, options, expected in (
    ("WEBP", {"lossless": True}, [0, 1, 2, 255, 255, 255, 255, 255]),
    ("GIF", {}, [0, 1, 2, 3, 3, 3, 3, 3]),
    ("PNG", {}, ids.ravel().tolist()),
):
    read = saved(ids, form, **options)
    check(f"ids in {form}", (read[..., 0] if read.ndim == 3 else read).ravel().tolist(), expected)
check("largest id in AVIF", int(saved(ids, "AVIF").max()), 255)
check("ids in JPEG", saved(ids, "JPEG"), "refused")
PY
venv/bin/python check.py
