"""What commands say while a model is fetched."""

import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from hf_maskadapter.cli.opening import silence_transformers


@pytest.fixture
def restored():
    """Both libraries' settings as they were."""
    before, verbosity, loading = (
        are_progress_bars_disabled(),
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
    )
    yield
    (logging.enable_progress_bar if loading else logging.disable_progress_bar)()
    logging.set_verbosity(verbosity)
    (disable_progress_bars if before else enable_progress_bars)()


@pytest.mark.parametrize("wanted", [True, False])
def test_quieting_transformers_leaves_the_bars_of_downloads_as_they_were(restored, wanted):
    (enable_progress_bars if wanted else disable_progress_bars)()
    silence_transformers()
    assert are_progress_bars_disabled() is not wanted
    assert not logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.ERROR
