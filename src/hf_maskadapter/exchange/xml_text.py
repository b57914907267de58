"""Texts that XML can hold."""

from __future__ import annotations

import re

from .errors import ExchangeError

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_xml_text(text: str, what: str) -> None:
    """Refuse a text that would make an XML file that no one can read.

    Args:
        text: the text.
        what: what it is, for the message.

    Raises:
        ExchangeError: if it holds a character that XML cannot hold.
    """
    if strange := _NOT_IN_XML.search(text):
        raise ExchangeError(f"{what} {text!r} holds the character {strange[0]!r}, which XML cannot hold: rename it.")


__all__ = ["check_xml_text"]
