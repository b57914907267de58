"""Clients that ask a service on loopback, each the next picture as soon as it has the answer before."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.serving.server import Server

_TIMEOUT = 600


@dataclass
class Load:
    """What some clients saw.

    Args:
        seconds: from each request to its answer, of those that were answered with 200.
        refused: those that were answered with 503, and asked again after a pause.
    """

    seconds: list[float] = field(default_factory=list)
    refused: int = 0


def form(picture: bytes, labels: Sequence[str], fields: dict[str, str]) -> tuple[bytes, str]:
    """A body of multipart/form-data, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [("labels", label.encode()) for label in labels] + [(name, text.encode()) for name, text in fields.items()]
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts
    )
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'
    return (
        body + head.encode() + picture + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


def ask(server: Server, bodies: Sequence[tuple[bytes, str]], requests: int, clients: int) -> Load:
    """Ask until some requests are answered.

    Args:
        server: whom.
        bodies: what, by turns.
        requests: how many answers there are to be.
        clients: how many ask at a time, each on a connection of its own.

    Raises:
        RuntimeError: if an answer is neither 200 nor 503; the message holds it.
    """
    load, numbers, lock = Load(), itertools.count(), threading.Lock()
    failures: list[str] = []

    def work() -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=_TIMEOUT)
        try:
            while (number := next(numbers)) < requests and not failures:
                body, content_type = bodies[number % len(bodies)]
                while True:
                    start = time.perf_counter()
                    connection.request("POST", "/v1/segment", body, {"Content-Type": content_type})
                    response = connection.getresponse()
                    content = response.read()
                    seconds = time.perf_counter() - start
                    if response.status != 503:
                        break
                    with lock:
                        load.refused += 1
                    time.sleep(0.1)
                if response.status != 200:
                    failures.append(f"{response.status}: {content[:300]!r}")
                    return
                with lock:
                    load.seconds.append(seconds)
        except OSError as error:
            failures.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"A request failed: {failures[0]}")
    return load


__all__ = ["Load", "ask", "form"]
