"""What `/metrics` tells, in Prometheus' form. It holds numbers only: no label, no address."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_PICTURES = (1, 2, 4, 8, 16, 32)
_SMOOTHING = 0.2
"""Weight of the newest batch in the mean time of a picture."""


class Metrics:
    """The numbers of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.seconds_each = 0.0
        """Seconds that the model lately took for a picture."""
        self._requests = Counter(
            "maskadapter_requests", "Answered requests", ("path", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "maskadapter_request_seconds", "From request to answer", ("path",), buckets=_SECONDS, registry=self.registry
        )
        self._pictures = Counter("maskadapter_pictures", "Pictures that went through the model", registry=self.registry)
        self._batches = Histogram(
            "maskadapter_batch_pictures", "Pictures in a batch", buckets=_PICTURES, registry=self.registry
        )
        self._waited = Histogram(
            "maskadapter_queue_seconds", "Waiting for the model", buckets=_SECONDS, registry=self.registry
        )
        self._computed = Counter("maskadapter_model_seconds", "Computing of the model", registry=self.registry)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Tell a number as it is when it is asked for."""
        Gauge(name, description, registry=self.registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def computed(self, size: int, waited: Sequence[float], seconds: float) -> None:
        """Count a batch."""
        self._pictures.inc(size)
        self._batches.observe(size)
        self._computed.inc(seconds)
        for one in waited:
            self._waited.observe(one)
        each = seconds / size
        self.seconds_each += (each - self.seconds_each) * (_SMOOTHING if self.seconds_each else 1)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)


__all__ = ["Metrics"]
