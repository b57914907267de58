"""Fixtures of the tests that run training commands."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from support import toy


@pytest.fixture
def fresh_accelerate_state():
    yield
    toy.reset_accelerate()


@pytest.fixture(scope="module")
def on_the_cpu():
    before = os.environ.get("ACCELERATE_USE_CPU")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    yield
    os.environ.pop("ACCELERATE_USE_CPU")
    if before is not None:
        os.environ["ACCELERATE_USE_CPU"] = before


@pytest.fixture
def data_dir(tmp_path):
    """Pictures and label maps in folders, six to train and two to validate on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("images", "labels"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
        for index in range(count):
            labels = np.kron(rng.integers(0, 3, (2, 3)), np.ones((24, 24))).astype(np.uint8)
            pixels = toy.COLORS[labels].astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / "images" / f"{index}.png")
            Image.fromarray(labels).save(tmp_path / "data" / split / "labels" / f"{index}.png")
    (tmp_path / "data" / "classes.json").write_text(json.dumps(["cat", "sky", "road"]))
    return tmp_path / "data"
