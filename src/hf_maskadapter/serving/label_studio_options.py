"""Where pictures of Label Studio's tasks may come from, as options: nothing heavy is imported for the help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..data.options import option

URL_VARIABLE = "LABEL_STUDIO_URL"
KEY_VARIABLE = "LABEL_STUDIO_API_KEY"
PORTS = {"http": 80, "https": 443}
"""Schemes of addresses that can be fetched, and their usual ports."""


@dataclass(kw_only=True)
class LabelStudioOptions:
    """Where pictures of Label Studio's tasks may come from."""

    label_studio_url: str | None = option(
        f"address of Label Studio, whose pictures are fetched with the token in the environment variable "
        f"{KEY_VARIABLE}; by default what {URL_VARIABLE} holds, if anything",
        None,
        metavar="URL",
    )
    label_studio_files: Path | None = option(
        "folder that Label Studio serves as local storage, from which its pictures are read instead of fetched",
        None,
        metavar="DIR",
    )
    label_studio_hosts: tuple[str, ...] = option(
        "further hosts from which pictures of tasks are fetched, without any token", (), metavar="HOST"
    )

    def __post_init__(self) -> None:
        if self.label_studio_url is not None:
            checked_url(self.label_studio_url, "--label-studio-url")
        if self.label_studio_files is not None and not self.label_studio_files.is_dir():
            raise ValueError(f"--label-studio-files {self.label_studio_files} is no folder")
        for host in self.label_studio_hosts:
            if not host or any(letter in host for letter in "/:@?#* "):
                raise ValueError(f"--label-studio-hosts takes names such as images.example.org, got {host!r}")


def checked_url(url: str, name: str) -> str:
    """The address of a server, without a slash at its end.

    Raises:
        ValueError: if it is none, or names a user or a query.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.username:
        raise ValueError(f"{name} must be an address such as http://localhost:8080, got {url!r}")
    return url.rstrip("/")


__all__ = ["KEY_VARIABLE", "PORTS", "URL_VARIABLE", "LabelStudioOptions", "checked_url"]
