"""Where the app listens."""

import socket

import pytest

from hf_maskadapter.app.launching import PortInUseError, _variables, check_port, run_app
from hf_maskadapter.app.settings import AppSettings


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_a_port_in_use_is_told_before_anything_is_loaded(taken_port):
    settings = AppSettings(models=("no such model",), port=taken_port)
    with pytest.raises(PortInUseError, match=rf"cannot listen on port {taken_port} of 127\.0\.0\.1: .*another --port"):
        run_app(settings)


def test_an_address_that_is_not_this_machines_is_refused():
    with pytest.raises(PortInUseError, match=r"of 192\.0\.2\.1: "):
        check_port("192.0.2.1", 0)
    check_port("127.0.0.1", 0)


def test_gradio_is_told_to_send_nothing_and_to_reach_itself_without_a_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "internal")
    variables = _variables("/folder")
    assert variables["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert variables["GRADIO_TEMP_DIR"] == "/folder"
    assert variables["no_proxy"] == "internal,127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)],
)
def test_only_loopback_is_local(host, is_local):
    assert AppSettings(models=("miniature",), host=host).is_local is is_local


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"models": ()}, "An app needs at least one model"),
        ({"port": 70000}, "port must lie between 0 and 65535, got 70000"),
        ({"max_pixels": 0}, "max_pixels must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AppSettings(**{"models": ("miniature",)} | wrong)
