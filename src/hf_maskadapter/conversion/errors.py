"""The one error that conversion raises for what a user can mend."""

from __future__ import annotations


class ConversionError(ValueError):
    """A checkpoint cannot be converted. The message says what is wrong and how to mend it; nothing was written."""


__all__ = ["ConversionError"]
