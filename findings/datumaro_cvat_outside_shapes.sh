#!/usr/bin/env bash
# What: datumaro reads the shape with which CVAT marks that a track has left the picture as an object that is there.
# Version: datumaro 1.13.12 (format cvat to coco_instances)
# Seen: A track with a polygon in frame 0 and the same polygon, outside=1, in frame 1: COCO gets an annotation in
#   both frames, the second without any mark.
# Why it matters: Every track of a video ends with a false object; drop annotations whose attribute `outside` is
#   true before exporting.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    datumaro==1.13.12 numpy==2.4.6 pillow==12.3.0 pycocotools==2.0.11

cat > check.py <<'PY'
import json
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


XML = """<annotations><version>1.1</version><meta><task><size>2</size><original_size><width>8</width><height>6</height>
</original_size><labels><label><name>cell</name><attributes/></label></labels></task></meta>
<track id="0" label="cell"><polygon frame="0" outside="0" keyframe="1" points="1,1;5,1;5,4" z_order="0"/>
<polygon frame="1" outside="1" keyframe="1" points="1,1;5,1;5,4" z_order="0"/></track></annotations>"""
Path("cvat/images").mkdir(parents=True)
for frame in range(2):
    Image.new("RGB", (8, 6)).save(f"cvat/images/frame_{frame:06d}.png")
Path("cvat/annotations.xml").write_text(XML)


def annotated(dataset, folder):
    dataset.export(folder, "coco_instances")
    coco = json.loads(Path(folder, "annotations/instances_annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    return sorted(names[annotation["image_id"]] for annotation in coco["annotations"]), coco["annotations"]


dataset = datumaro.Dataset.import_from("cvat", "cvat")
outside = {item.id: [shape.attributes["outside"] for shape in item.annotations] for item in dataset}
check("attribute outside", outside, {"frame_000000": [False], "frame_000001": [True]})
frames, annotations = annotated(dataset, "coco")
check("COCO, annotated frames", frames, ["frame_000000.png", "frame_000001.png"])
check("COCO, crowds", [annotation["iscrowd"] for annotation in annotations], [0, 0])
PY
venv/bin/python check.py
