#!/usr/bin/env bash
# What: gradio's Image input shows a model other pixels than the browser shows the user: transparency is dropped, and
#   16-bit grey is cut off.
# Version: gradio 6.31.0 (Image.preprocess with the default image_mode "RGB"), Pillow 12.3.0
# Seen: what is transparent, white on the page, gets the colour that the file hides there, usually black; a 16-bit grey
#   picture of the values 0 to 65535, a ramp in the browser, becomes white but for its first 1/256.
# Why it matters: demos segment and classify cut-out products and microscope pictures that nobody has seen so. Take
#   type="filepath" and image_mode=None, and read the file yourself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    gradio==6.31.0 pillow==12.3.0 numpy==2.4.6

cat > check.py <<'PY'
import os

os.environ["GRADIO_TEMP_DIR"] = "files"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio
import numpy as np
import PIL
from gradio.data_classes import ImageData
from PIL import Image

print("gradio", gradio.__version__, "Pillow", PIL.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def given(path):
    payload = ImageData(path=path, orig_name=path)
    return np.asarray(gradio.Image(type="pil").preprocess(payload))


Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save("clear.png")
check("a transparent pixel", given("clear.png")[0, 0].tolist(), [0, 0, 0])
ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
Image.fromarray(ramp).save("ramp.png")
seen = given("ramp.png")[..., 0]
check("white pixels of a 16-bit ramp, of 65536", int((seen == 255).sum()), 65281)
PY
venv/bin/python check.py
