#!/usr/bin/env bash
# What: datumaro leaves out ellipses of a CVAT file without a word, and writes their attributes onto the shape
#   before them.
# Version: datumaro 1.13.12 (format cvat)
# Seen: A polygon with the attribute number=7, followed by an ellipse with number=9: one polygon is read, and its
#   number is 9.
# Why it matters: Objects drawn with the ellipse tool are missing from the converted data set, and attributes
#   (occlusion grades, track numbers, dates) of objects that are kept are wrong.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    datumaro==1.13.12 numpy==2.4.6 pillow==12.3.0 pycocotools==2.0.11

cat > check.py <<'PY'
import logging
from importlib.metadata import version
from pathlib import Path

import datumaro
from PIL import Image

logging.disable(logging.CRITICAL)
print("datumaro", version("datumaro"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


HEAD = """<annotations><version>1.1</version><meta><task><size>1</size><labels><label><name>cell</name><attributes>
<attribute><name>number</name><input_type>number</input_type></attribute></attributes></label></labels></task></meta>
<image id="0" name="a.png" width="8" height="6">"""
POLYGON = """<polygon label="cell" occluded="0" points="1,1;5,1;5,4" z_order="0"><attribute name="number">7</attribute>
</polygon>"""
ELLIPSE = """<ellipse label="cell" occluded="0" cx="6" cy="3" rx="2" ry="1" z_order="0">
<attribute name="number">9</attribute></ellipse>"""
Path("cvat/images").mkdir(parents=True)
Image.new("RGB", (8, 6)).save("cvat/images/a.png")


def read(shapes):
    Path("cvat/annotations.xml").write_text(f"{HEAD}{shapes}</image></annotations>")
    (item,) = datumaro.Dataset.import_from("cvat", "cvat")
    return [(type(shape).__name__, shape.attributes["number"]) for shape in item.annotations]


check("polygon", read(POLYGON), [("Polygon", 7.0)])
check("polygon, ellipse", read(POLYGON + ELLIPSE), [("Polygon", 9.0)])
check("ellipse, polygon", read(ELLIPSE + POLYGON), [("Polygon", 7.0)])
PY
venv/bin/python check.py
