"""What a request is refused with: a status, and one sentence."""

from __future__ import annotations


class RequestError(Exception):
    """A request is refused.

    Args:
        status: HTTP's status.
        sentence: what was wrong, what was expected and how to mend it, for the client alone: it may hold labels.
        retry_after: seconds after which it may succeed, for status 503.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after
        self.sentence = sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer, beside its type and length."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


__all__ = ["ClientGoneError", "RequestError"]
