"""The one error of this room."""


class ExchangeError(ValueError):
    """Results cannot be written or read; the message says which, why, and how to mend it."""


__all__ = ["ExchangeError"]
