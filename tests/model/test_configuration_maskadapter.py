"""Configuration of the adapter and the segmenter: parts that do not fit together are refused."""

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError

from support import tiny_models


@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny_models.segmenter(mask_channels=6),
        lambda: tiny_models.segmenter(embed_dim=5),
        lambda: tiny_models.segmenter(mask_generator_config=tiny_models.generator_config(text_embed_dim=8)),
        lambda: tiny_models.segmenter(clip_config=None, embed_dim=16),
    ],
)
def test_configurations_that_do_not_fit_together_are_refused(build):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=r"must|need"):
        build()
