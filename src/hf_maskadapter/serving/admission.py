"""Who is let in: a bounded number of requests, and a bounded amount of memory for what they bring."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import RequestError

_LONGEST_RETRY = 60


class Place:
    """What one accepted request holds."""

    def __init__(self, admission: Admission):
        self._admission = admission
        self.reserved = 0
        self.is_given_back = False

    def reserve(self, number: int) -> None:
        """Take memory, from any thread, until the request is answered.

        Args:
            number: of bytes.

        Raises:
            RequestError: if there is too little: status 413 if it would not even suffice for this request alone.
        """
        self._admission.reserve(self, number)


class Admission:
    """Counts accepted requests and their memory; what is too much is refused at once and never waits.

    Args:
        places: most requests at a time.
        memory: most bytes of theirs.
        seconds_each: tells how long a request takes, for what refused clients are told.
    """

    def __init__(self, places: int, memory: int, seconds_each: Callable[[], float]):
        self.places, self.memory, self._seconds_each = places, memory, seconds_each
        self.in_use, self.reserved = 0, 0
        self.accepted, self.answered = 0, 0
        self._lock = threading.Lock()

    @property
    def retry_after(self) -> int:
        """Seconds until what is here now will probably be done."""
        return min(max(round(self.in_use * self._seconds_each()), 1), _LONGEST_RETRY)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for a request, while the block runs.

        Raises:
            RequestError: if all are taken (status 503).
        """
        if self.in_use >= self.places:
            raise RequestError(
                503, f"{self.places} requests are waiting already; try again in a moment.", self.retry_after
            )
        self.in_use += 1
        self.accepted += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.in_use -= 1
            self.answered += 1
            with self._lock:
                self.reserved -= place.reserved
                place.is_given_back = True

    def reserve(self, place: Place, number: int) -> None:
        """Count memory; use [`Place.reserve`]."""
        if place.reserved + number > self.memory:
            raise RequestError(
                413,
                f"The request takes {place.reserved + number} bytes of memory; there are {self.memory} for all "
                "together: shrink the picture, or send fewer masks.",
            )
        with self._lock:
            if place.is_given_back or self.reserved + number > self.memory:
                raise RequestError(
                    503, "Too many large pictures are waiting already; try again in a moment.", self.retry_after
                )
            self.reserved += number
            place.reserved += number


__all__ = ["Admission", "Place"]
