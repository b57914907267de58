"""What an app offers, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

DEFAULT_PORT = 7860


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """What an app offers, where it listens, and its limits.

    Args:
        models: the models to choose from, as [`hf_maskadapter.loading.find_model`] takes them; the first is loaded at
            the start.
        device: where models run; by default the first accelerator there is.
        host: address to listen on.
        port: port to listen on.
        max_pixels: of a picture; larger ones are refused before they are decoded.
        max_upload_bytes: of a picture's file.
        max_names: names, synonyms included, that may be typed at once.
        max_waiting: requests that wait at most while others are worked on, one at a time.
        max_sessions: open pages whose last result is kept, in memory, for clicks on it; older ones are forgotten.

    Raises:
        ValueError: if there is no model, or a limit is below 1.
    """

    models: tuple[str, ...]
    device: str | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    max_pixels: int = 25_000_000
    max_upload_bytes: int = 50_000_000
    max_names: int = 1000
    max_waiting: int = 16
    max_sessions: int = 32

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("An app needs at least one model.")
        for name in ("max_pixels", "max_upload_bytes", "max_names", "max_waiting", "max_sessions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must lie between 0 and 65535, got {self.port}.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the app."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name of the machine
            return False


__all__ = ["DEFAULT_PORT", "AppSettings"]
