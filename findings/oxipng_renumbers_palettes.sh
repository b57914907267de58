#!/usr/bin/env bash
# What: oxipng, a lossless PNG optimiser, renumbers the palette of a label map: colours stay, class ids change.
# Version: pyoxipng 9.1.1 (any level), Pillow 13.0.0
# Seen: The classes 0, 5, 200 and 255 of a palette PNG are read as 0, 3, 1, 2 afterwards, without a 200 in the
#   picture 0, 2, 1; in a grey PNG they stay. Level 0 does it, too.
# Why it matters: Optimised VOC-like annotations are still pretty and all wrong, differently for each picture. Keep
#   label maps grey, or out of the optimiser.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    pyoxipng==9.1.1 pillow==13.0.0 numpy==2.4.6

cat > check.py <<'PY'
import io
from importlib.metadata import version

import numpy as np
import oxipng
from PIL import Image

print("pyoxipng", version("pyoxipng"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


labels = np.zeros((64, 64), np.uint8)
labels[:20], labels[20:40, :30], labels[50:, 40:] = 200, 5, 255
grey, coloured = Image.fromarray(labels), Image.fromarray(labels)
coloured.putpalette([(37 * index + 91 * channel) % 256 for index in range(256) for channel in range(3)])


def optimised(image, level):
    file = io.BytesIO()
    image.save(file, "PNG")
    return Image.open(io.BytesIO(oxipng.optimize_from_memory(file.getvalue(), level=level)))


def renumbered(image, level):
    """Class before: class after; the colours must be the same."""
    after = optimised(image, level)
    assert (np.array(after.convert("RGB")) == np.array(image.convert("RGB"))).all()
    pairs = set(zip(np.ravel(image).tolist(), np.ravel(after).tolist()))
    return dict(sorted(pairs))


without_200 = coloured.copy()
without_200.paste(0, (0, 0, 64, 20))
for level in (0, 2, 4):
    check(f"level {level}, grey", renumbered(grey, level), {0: 0, 5: 5, 200: 200, 255: 255})
    check(f"level {level}, palette", renumbered(coloured, level), {0: 0, 5: 3, 200: 1, 255: 2})
    check(f"level {level}, palette, picture without class 200", renumbered(without_200, level), {0: 0, 5: 2, 255: 1})
PY
venv/bin/python check.py
