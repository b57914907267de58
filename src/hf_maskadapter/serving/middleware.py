"""Around every request: the key, the access log, the numbers, and faults that are told without what was sent."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import time
import traceback
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .service import Service

OPEN_PATHS = frozenset({"/healthz", "/docs", "/openapi.json"})
"""What needs no key."""

_UNKNOWN_PATH = "(no such path)"
_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware of a service.

    What it logs of a request is its path in the application's own spelling, the status and the time: no address, no
    query, no body, no message of an exception, since any of these could hold what a person sent.

    Args:
        app: what is guarded.
        service: whose key and numbers these are.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in OPEN_PATHS and not self._has_key(scope):
                sentence = "This service needs its key: send the header Authorization: Bearer KEY."
                await _send_problem(send_counted, 401, sentence)
            else:
                await self.app(scope, receive, send_counted)
        except Exception as error:
            places = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a fault of the program, %s, at\n%s", type(error).__name__, places)
            if status == 0:
                await _send_problem(send_counted, 500, "The service failed; its log tells where.")
        finally:
            seconds = time.perf_counter() - start
            own = scope["path"] if scope["path"] in OPEN_PATHS else _UNKNOWN_PATH
            path = str(getattr(scope.get("route"), "path", own))
            self.service.metrics.answered(path, status, seconds)
            _log.info("%s %s %d %.3f s", scope["method"], path, status, seconds)

    def _has_key(self, scope: Scope) -> bool:
        if self.service.api_key is None:
            return True
        return hmac.compare_digest(_given_key(Headers(scope=scope)), self.service.api_key.encode())


def _given_key(headers: Headers) -> bytes:
    """The key in a request's headers, also as the password of Basic authentication; empty if there is none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return headers.get("x-api-key", "").encode("latin-1")


async def _send_problem(send: Send, status: int, sentence: str) -> None:
    content = json.dumps({"detail": sentence}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


__all__ = ["OPEN_PATHS", "Guard"]
