"""One request from its acceptance to its answer: a place, the body, a time limit, and a client that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from .admission import Place
from .errors import ClientGoneError, RequestError
from .service import Service

Value = TypeVar("Value")


def service_of(request: Request) -> Service:
    """The service that the application was made for."""
    return request.app.state.service


async def answer_in_time(request: Request, handle: Callable[[bytes, Place], Awaitable[Value]]) -> Value:
    """Give a request a place, read its body and handle it.

    Args:
        request: of which nothing was read.
        handle: takes the body and the place; is cancelled where the time is over or the client has gone.

    Raises:
        RequestError: if all places are taken, the body is too large, or it takes too long.
        ClientGoneError: if nobody waits for the answer any more.
    """
    service = service_of(request)
    limits = service.limits.request
    _refuse_announced(request, limits.upload_bytes)
    with service.admission.place() as place:
        body = None
        try:
            async with asyncio.timeout(limits.time_limit):
                body = await _read_body(request, limits.upload_bytes, place)
                return await _unless_disconnected(request, handle(body, place))
        except TimeoutError as error:
            if body is None:
                raise RequestError(408, f"The request did not arrive within {limits.time_limit:g} seconds.") from error
            raise RequestError(
                504, f"There was no result within {limits.time_limit:g} seconds; try again later, or a smaller picture."
            ) from error


def _refuse_announced(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"The request is larger than {limit} bytes: shrink the picture.")


async def _read_body(request: Request, limit: int, place: Place) -> bytes:
    content = bytearray()
    try:
        async for chunk in request.stream():
            if len(content) + len(chunk) > limit:
                raise _too_large(limit)
            place.reserve(len(chunk))
            content += chunk
    except ClientDisconnect as error:
        raise ClientGoneError from error
    return bytes(content)


async def _unless_disconnected(request: Request, handled: Awaitable[Value]) -> Value:
    async def until_disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work, gone = asyncio.ensure_future(handled), asyncio.ensure_future(until_disconnected())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientGoneError
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


__all__ = ["answer_in_time", "service_of"]
