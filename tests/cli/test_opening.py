"""What commands say of the model that they open, and while it is fetched."""

import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from hf_maskadapter.cli import main
from hf_maskadapter.cli.opening import silence_transformers
from support.commands import assert_one_error


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


@pytest.mark.parametrize(("command", "what"), [("serve", "the service"), ("app", "the app")])
def test_an_exported_model_is_refused_where_it_cannot_run(tmp_path, capsys, command, what):
    (tmp_path / "manifest.json").write_text("{}")
    assert main([command, "--model", str(tmp_path)]) == 2
    assert_one_error(capsys, f"is an exported model, which {what} does not run: name the one that it was made from")
