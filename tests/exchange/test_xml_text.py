"""Texts that XML can hold, as Python's parser has it."""

from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest

from hf_maskadapter.exchange import ExchangeError
from hf_maskadapter.exchange.xml_text import check_xml_text


@pytest.mark.parametrize(
    "code", [0x00, 0x07, 0x09, 0x0A, 0x1F, 0x20, 0x7F, 0xE9, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0x1F408]
)
def test_characters_are_refused_exactly_where_a_parser_refuses_them(code):
    text = f"a{chr(code)}b"
    try:
        read = ElementTree.fromstring(f"<x y={quoteattr(text)}/>".encode()).get("y")
    except (ElementTree.ParseError, ValueError):
        with pytest.raises(ExchangeError, match=r"^The name .* which XML cannot hold"):
            check_xml_text(text, "The name")
    else:
        assert read == text
        check_xml_text(text, "The name")
