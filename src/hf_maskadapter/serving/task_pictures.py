"""Pictures of Label Studio's tasks: from Label Studio itself, from hosts that were named, or from one folder.

A task names its picture by an address, and whoever may ask for predictions writes tasks. So the service fetches from
nowhere but the places that its options name, follows no redirection, and sends the token to Label Studio alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

from .errors import RequestError
from .label_studio_options import KEY_VARIABLE, PORTS, URL_VARIABLE, LabelStudioOptions, checked_url

_PICTURE_PATHS = ("/data/", "/storage-data/")
"""Where Label Studio keeps pictures; the token is used for nothing else."""

_LOCAL_FILES = "/data/local-files"
_SECONDS = 20.0
_ACCESS_SECONDS = 240.0
"""How long an access token is used, which Label Studio gives for a personal one and takes back after 5 minutes."""


class TaskPictures:
    """Reads the pictures of tasks.

    Args:
        options: where they may come from.
        max_bytes: of the largest.
        transport: of the HTTP client, for tests.

    Raises:
        ValueError: if the address in the environment is none.
    """

    def __init__(self, options: LabelStudioOptions, max_bytes: int, transport: httpx.AsyncBaseTransport | None = None):
        url = options.label_studio_url or os.environ.get(URL_VARIABLE) or None
        self._url = None if url is None else checked_url(url, URL_VARIABLE)
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        self._folder = None if options.label_studio_files is None else options.label_studio_files.resolve()
        self._hosts = frozenset(host.lower() for host in options.label_studio_hosts)
        self._max_bytes, self._transport = max_bytes, transport
        self._client: httpx.AsyncClient | None = None
        self._access: tuple[str, float] | None = None

    async def close(self) -> None:
        """End open connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def read(self, address: str) -> bytes:
        """The encoded picture at an address of a task.

        Args:
            address: as it stands in the task's data.

        Raises:
            RequestError: if pictures are not taken from there (422), or it cannot be had (424).
        """
        if address.startswith("data:"):
            return self._inline(address)
        try:
            parts = urlsplit(address)
            port = parts.port
            address.encode()  # JSON may hold halves of characters
        except ValueError as error:
            raise RequestError(422, "its address is malformed") from error
        if not parts.scheme and not parts.netloc and parts.path.startswith("/"):
            return await self._from_label_studio(parts.path, parts.query)
        if parts.scheme not in PORTS or not parts.hostname:
            raise RequestError(
                422,
                f"it lies at {_shortened(address)}, which is not fetched: pictures come from Label Studio itself "
                "(uploads, local storage), over http or https, or inline as data:image/...;base64,",
            )
        if self._url is not None and _origin(address) == _origin(self._url):
            path = parts.path.removeprefix(urlsplit(self._url).path)
            return await self._from_label_studio(path, parts.query)
        if parts.hostname in self._hosts and port in (None, PORTS[parts.scheme]):
            return await self._fetched(address, {})
        raise RequestError(
            422,
            f"it lies at {parts.hostname}, from where no pictures are fetched: start the service with "
            f"--label-studio-hosts {parts.hostname} if you trust that host",
        )

    def _inline(self, address: str) -> bytes:
        head, _, text = address.partition(",")
        if not head.startswith("data:image/") or not head.endswith(";base64"):
            raise RequestError(422, "its data address must begin with data:image/...;base64,")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(422, "its data address holds no Base64") from error

    async def _from_label_studio(self, path: str, query: str) -> bytes:
        if ".." in unquote(path).split("/"):
            raise RequestError(422, "its address leads out of its folder")
        if path.rstrip("/") == _LOCAL_FILES and self._folder is not None:
            return self._local(query)
        if self._url is None:
            raise RequestError(
                422,
                f"it lies on Label Studio, whose address is not known: start the service with --label-studio-url and "
                f"{KEY_VARIABLE}",
            )
        if not path.startswith(_PICTURE_PATHS):
            raise RequestError(422, f"it lies at {_shortened(path)}; Label Studio keeps pictures below /data/")
        return await self._fetched(f"{self._url}{path}{'?' if query else ''}{query}", await self._authorization())

    def _local(self, query: str) -> bytes:
        assert self._folder is not None
        relative = parse_qs(query).get("d", [""])[-1].lstrip("/")
        try:
            path = (self._folder / relative).resolve()
            if not relative or not path.is_relative_to(self._folder) or not path.is_file():
                raise RequestError(422, "--label-studio-files has no such picture")
            if path.stat().st_size > self._max_bytes:
                raise self._too_large()
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise RequestError(422, "its file cannot be read") from error

    async def _authorization(self) -> dict[str, str]:
        if not self._key:
            return {}
        if self._key.count(".") != 2:
            return {"Authorization": f"Token {self._key}"}
        if self._access is None or time.monotonic() > self._access[1]:
            content = await self._asked("POST", f"{self._url}/api/token/refresh/", {}, {"refresh": self._key})
            try:
                access = json.loads(content)["access"]
            except (ValueError, KeyError, TypeError) as error:
                raise RequestError(424, "Label Studio gave no access token") from error
            self._access = str(access), time.monotonic() + _ACCESS_SECONDS
        return {"Authorization": f"Bearer {self._access[0]}"}

    async def _fetched(self, address: str, headers: dict[str, str]) -> bytes:
        return await self._asked("GET", address, headers, None)

    async def _asked(self, method: str, address: str, headers: dict[str, str], content: dict[str, str] | None) -> bytes:
        if self._client is None:
            self._client = httpx.AsyncClient(follow_redirects=False, timeout=_SECONDS, transport=self._transport)
        received = bytearray()
        try:
            async with self._client.stream(method, address, headers=headers, json=content) as response:
                if response.is_redirect:
                    raise RequestError(424, "its host sends elsewhere, which is not followed")
                if response.status_code != 200:
                    advice = f"; check {KEY_VARIABLE}" if response.status_code in (401, 403, 404) else ""
                    raise RequestError(424, f"its host answers with status {response.status_code}{advice}")
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > self._max_bytes:
                        raise self._too_large()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RequestError(424, f"its host cannot be reached ({type(error).__name__})") from error
        return bytes(received)

    def _too_large(self) -> RequestError:
        return RequestError(413, f"it is larger than {self._max_bytes} bytes: shrink it")


def _origin(address: str) -> tuple[str, str, int | None]:
    parts = urlsplit(address)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


__all__ = ["TaskPictures"]
