"""`maskadapter app`: its options, and what it says of mistakes before anything is loaded."""

import socket

import pytest

from hf_maskadapter.app import launching
from hf_maskadapter.app.settings import AppSettings
from hf_maskadapter.cli import app, main
from support.commands import assert_one_error


@pytest.fixture
def with_gradio(monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: object())


@pytest.fixture
def served(monkeypatch, with_gradio):
    """The settings of the app that would have been served."""
    settings = []
    monkeypatch.setattr(launching, "run_app", settings.append)
    return settings


def test_the_page_offers_every_model_that_has_a_name_and_listens_to_this_machine(served):
    assert main(["app"]) == 0
    assert served == [AppSettings(models=("miniature", "fcclip-large", "maft-base", "maft-large"))]
    assert served[0].is_local


def test_options_are_heeded(served, tmp_path):
    words = "--port 9000 --device cpu --max-megapixels 3 --max-megabytes 2 --max-waiting 5 --host 0.0.0.0"
    assert main(["app", "--model", str(tmp_path), *words.split()]) == 0
    (settings,) = served
    assert settings == AppSettings(
        models=(str(tmp_path), "miniature", "fcclip-large", "maft-base", "maft-large"),
        port=9000,
        device="cpu",
        max_pixels=3_000_000,
        max_upload_bytes=2_000_000,
        max_waiting=5,
        host="0.0.0.0",
    )


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert_one_error(capsys, "the app needs Gradio", "pip install 'hf-maskadapter[app]'")


def test_a_port_in_use_is_one_clear_error(with_gradio, capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
    assert_one_error(capsys, f"cannot listen on port {port} of 127.0.0.1", "choose another --port")


def test_options_that_do_not_go_together_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["app", "--overwrite"])
    assert ended.value.code == 2
    assert_one_error(capsys, "--overwrite belongs to --write-space DIR")
    assert main(["app", "--port", "70000"]) == 2
    assert_one_error(capsys, "port must lie between 0 and 65535, got 70000")
