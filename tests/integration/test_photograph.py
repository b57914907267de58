"""From a released-layout checkpoint and a photograph to segments, by the command line alone."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter import cli

ROOT = Path(__file__).parents[2]
SHARED = os.environ.get("MASKADAPTER_SHARED")
LABELS = ["person", "grass", "tree", "sky", "shorts, trousers"]

pytestmark = pytest.mark.skipif(not SHARED, reason="MASKADAPTER_SHARED does not name a folder with photographs")


@pytest.fixture(scope="module")
def photograph() -> Path:
    return sorted((Path(SHARED) / "data" / "coco_panoptic_sample" / "input_images").glob("*.jpg"))[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    checkpoint = ROOT / "tests" / "fixtures" / "fcclip_large" / "checkpoint.pth"
    bpe_file = Path(SHARED) / "data" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
    arguments = [checkpoint, "--config", ROOT / "examples" / "random_checkpoint.json", "--tokenizer", bpe_file]
    assert cli.main(["convert", *map(str, arguments), "--output", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance"])
def test_photograph_is_segmented_with_a_converted_checkpoint(task, model, photograph, tmp_path):
    vocabulary = tmp_path / "names.txt"
    vocabulary.write_text("\n".join(LABELS))
    output = tmp_path / "result.png"
    options = ["--vocabulary", vocabulary, "--model", model, "--task", task, "--output", output, "--device", "cpu"]
    assert cli.main(["segment", str(photograph), *map(str, options), "--json", "--masks", "--no-legend"]) == 0

    with Image.open(photograph) as original, Image.open(output) as painted:
        size = original.size
        assert painted.size == size
        assert (np.asarray(painted.convert("RGB")) != np.asarray(original.convert("RGB"))).any()
    segments = json.loads(output.with_suffix(".json").read_text())["segments"]
    assert segments
    assert {segment["label"] for segment in segments} <= {name.split(",")[0] for name in LABELS}
    if task != "instance":
        with Image.open(tmp_path / "result_masks.png") as masks:
            assert masks.size == size
            areas = dict(zip(*np.unique(np.asarray(masks), return_counts=True), strict=True))
        for segment in segments:
            assert areas[segment["id"]] == segment["area"]
