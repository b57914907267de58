"""Serve the app until it is told to end, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping

from ..loading import print_to_stderr
from .models import AppModels
from .settings import AppSettings


class PortInUseError(OSError):
    """Nothing can listen on the port; the message says why and what to do."""


def run_app(settings: AppSettings, report: Callable[[str], None] = print_to_stderr) -> None:
    """Load the first model, serve the page, and wait: until Ctrl-C, or another exception in the main thread.

    Args:
        settings: what the app offers, where it listens, and its limits.
        report: takes each line about what is being done.

    Raises:
        PortInUseError: if the port cannot be had, before anything is loaded.
        ValueError, OSError: if the model cannot be loaded.
        ModuleNotFoundError: if Gradio is not installed.
    """
    check_port(settings.host, settings.port)
    with tempfile.TemporaryDirectory(prefix="maskadapter-app-") as folder, _environment(_variables(folder)):
        from .interface import build_app, launch_options  # reads these variables when it is imported

        models = AppModels(settings.models, settings.device)
        models.get(models.names[0], report)
        app = build_app(settings, models)
        try:
            _, address, _ = app.launch(**launch_options(settings))
            report(f"The app is at {address} (Ctrl-C ends it).")
            if not settings.is_local:
                report(
                    f"warning: it listens on {settings.host}, so that whoever reaches this machine can use it, without "
                    "a password and unencrypted."
                )
            threading.Event().wait()
        finally:
            app.close(verbose=False)


def check_port(host: str, port: int) -> None:
    """Find out whether something can listen there.

    Raises:
        PortInUseError: if not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        raise PortInUseError(
            f"the app cannot listen on port {port} of {host}: {error.strerror or error}. End what listens there, or "
            "choose another --port."
        ) from error


def _variables(folder: str) -> dict[str, str]:
    """Variables of the environment that Gradio heeds, and it alone."""
    loopback = "127.0.0.1,localhost,::1"
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    without_proxy = f"{others},{loopback}" if others else loopback  # Gradio asks itself whether it is there
    return {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "no_proxy": without_proxy,
        "NO_PROXY": without_proxy,
    }


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


__all__ = ["PortInUseError", "check_port", "run_app"]
