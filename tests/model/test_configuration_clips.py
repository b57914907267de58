"""Configurations of the CLIPs: what does not fit together is refused."""

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError

from support import tiny_models


@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny_models.clip(depths=[1, 1]),
        lambda: tiny_models.clip(kernel_sizes=4),
        lambda: tiny_models.clip(projection_dim=8),
    ],
)
def test_configurations_that_do_not_fit_together_are_refused(build):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=r"must|need"):
        build()
