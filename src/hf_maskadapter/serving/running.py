"""Run a service: its socket, its log, and an end that lets what was accepted be answered."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from .service import Service

API_KEY_VARIABLE = "MASKADAPTER_API_KEY"
"""Environment variable that holds the key."""

_BACKLOG = 512
_SECONDS_AFTER_LIMIT = 5


class ServingError(OSError):
    """The service cannot be started; the message says why and what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    It is closed again where only whether it could be had is asked: clients are refused until the model is loaded.

    Args:
        host: name or number of an interface.
        port: 0 for any free one.

    Raises:
        ServingError: if the port is taken, or there is no such interface.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ServingError(f"--host {host} is no address of this machine: {error}") from error
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)  # two may bind one address until one listens
    except (OSError, OverflowError) as error:
        bound.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ServingError(
            f"port {port} of {host} cannot be had ({reason}): end what uses it, or choose another --port"
        ) from error
    return bound


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(file: Path | None) -> str | None:
    """The key from a file, or else from the environment; `None` if neither holds one.

    Raises:
        ServingError: if the file cannot be read, or the key is none.
    """
    if file is not None:
        try:
            key, source = file.read_text(encoding="ascii").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise ServingError(f"--api-key-file {file} cannot be read: {error}") from error
    elif API_KEY_VARIABLE in os.environ:
        key, source = os.environ[API_KEY_VARIABLE].strip(), API_KEY_VARIABLE
    else:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ServingError(f"{source} holds no key: it must be one word of printable ASCII characters")
    return key


def address_of(bound: socket.socket) -> str:
    """The address at which clients find a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_application(application: FastAPI, service: Service, bound: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; then no request is accepted any more, and those that were are answered.

    Raises:
        KeyboardInterrupt: after that end; what the signal's handler of before raises.
    """
    _log_to_stderr()
    log = logging.getLogger(__name__)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            lifespan="on",
            ws="none",
            access_log=False,  # it would hold queries
            log_config=None,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=int(service.limits.request.time_limit) + _SECONDS_AFTER_LIMIT,
        )
    )
    log.info("listening at %s", address_of(bound))
    try:
        server.run(sockets=[bound])
    finally:
        admission = service.admission
        log.info("stopped: %d requests accepted, %d answered", admission.accepted, admission.answered)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger(__package__)
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.INFO)
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their messages may hold what was sent


__all__ = ["API_KEY_VARIABLE", "ServingError", "address_of", "bind", "is_loopback", "read_key", "run_application"]
