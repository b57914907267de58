"""What one request may ask for, and what all of them together may hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..data.options import option, option_group

_MEGA = 1_000_000


@dataclass(kw_only=True)
class RequestLimits:
    """Of a single request."""

    max_upload_megabytes: float = option("largest body of a request", 20.0, metavar="X")
    max_megapixels: float = option("most pixels of a picture, which is refused before it is decoded", 25.0, metavar="X")
    max_labels: int = option(
        "most names, with synonyms, that a request may bring; built-in label sets are always allowed", 1000
    )
    max_masks: int = option("most masks that a request may bring", 100)
    time_limit: float = option("seconds from a request's arrival to its answer", 60.0, metavar="SECONDS")

    def __post_init__(self) -> None:
        _refuse_small(self, "max_upload_megabytes", "max_megapixels", "max_labels", "max_masks", "time_limit")

    @property
    def upload_bytes(self) -> int:
        """Bytes of the largest body."""
        return int(self.max_upload_megabytes * _MEGA)

    @property
    def pixels(self) -> int:
        """Pixels of the largest picture."""
        return int(self.max_megapixels * _MEGA)


@dataclass(kw_only=True)
class QueueOptions:
    """Of all requests together."""

    batch_size: int = option(
        "most pictures that the model takes at a time; only those that it sees at the same size go together", 8
    )
    queue: int = option("most requests that are read, wait or run; further ones are answered with 503", 64)
    queue_megabytes: float = option(
        "most memory of the pictures and masks of these; further ones are answered with 503", 1000.0, metavar="X"
    )
    vocabularies: int = option("most vocabularies that are kept encoded, the last used ones", 32)

    def __post_init__(self) -> None:
        _refuse_small(self, "batch_size", "queue", "queue_megabytes", "vocabularies")

    @property
    def queue_bytes(self) -> int:
        """Bytes of decoded pictures and masks."""
        return int(self.queue_megabytes * _MEGA)


@dataclass(kw_only=True)
class ServiceLimits:
    """Every limit of a service."""

    request: RequestLimits = option_group(RequestLimits, "limits of a request")
    queue: QueueOptions = option_group(QueueOptions, "limits of all requests together")


def _refuse_small(options: RequestLimits | QueueOptions, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if not (value >= 1 if isinstance(value, int) else 0 < value < math.inf):
            least = "at least 1" if isinstance(value, int) else "a number above 0"
            raise ValueError(f"--{name.replace('_', '-')} must be {least}, got {value}")


__all__ = ["QueueOptions", "RequestLimits", "ServiceLimits"]
