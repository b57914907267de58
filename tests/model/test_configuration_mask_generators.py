"""Configurations of the mask generators: what does not fit together is refused."""

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError

from support import tiny_models


@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny_models.generator(feature_size=40),
        lambda: tiny_models.generator(feature_channels=[8, 16]),
        lambda: tiny_models.generator(common_stride=16, feature_strides=[2, 4, 8, 32]),
    ],
)
def test_configurations_that_do_not_fit_together_are_refused(build):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=r"must|need"):
        build()
