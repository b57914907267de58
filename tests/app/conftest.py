"""What the app's tests share: the embedded model, a drawn scene and its labels."""

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.app.models import AppModels
from hf_maskadapter.app.scenes import example_scenes


@pytest.fixture(scope="session")
def models() -> AppModels:
    return AppModels(["miniature"], device="cpu")


@pytest.fixture(scope="session")
def miniature(models):
    return models.get("miniature")


@pytest.fixture(scope="session")
def scene():
    return example_scenes()[0]


@pytest.fixture
def noise() -> Image.Image:
    """Nothing that the embedded model knows."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
