"""Pieces of the page: what comes from users stays text."""

from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.app import pieces
from hf_maskadapter.app.downloads import Download
from hf_maskadapter.app.scenes import ExampleScene
from hf_maskadapter.app.segmenting import Comparison, Difference, Explanation
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary

EVIL = "<img src=x onerror=alert(1)>\"'&"
PICTURE = Image.new("RGB", (768, 768))  # at the size that the page shows


class Page(HTMLParser):
    """The elements of a piece, and its text."""

    def __init__(self, piece):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(piece)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def explained(label="cat", words=(), *, score=0.5, is_own_score=True, share=1.0, void=0.0):
    return Explanation(label, score, is_own_score, share, words, void, np.ones((2, 2)))


def compared(*differences):
    vocabulary = Vocabulary.from_list([[EVIL], ["wall"]])
    segments = Segments([Segment.of_class(vocabulary, 0, np.ones((8, 8), bool))], (8, 8), vocabulary)
    return Comparison(segments, segments, np.full((8, 8), bool(differences)), differences)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pieces.message(EVIL, "error"),
        lambda: pieces.hint(EVIL),
        lambda: pieces.explanation_piece(PICTURE, explained(EVIL, ((EVIL, 0.5),)), "crop"),
        lambda: pieces.downloads_piece([Download(EVIL, EVIL, "text/plain", b"")]),
        lambda: pieces.comparison_piece(PICTURE, compared(Difference(EVIL, EVIL, 1.0, 64))),
        lambda: pieces.scenes_piece([ExampleScene(EVIL, PICTURE, "", "")]),
    ],
    ids=["message", "hint", "explanation", "downloads", "comparison", "scenes"],
)
def test_what_users_write_is_text_and_nothing_else(make):
    page = Page(make())
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert all(attributes["src"].startswith("data:image/") for attributes in page.of("img"))
    told = [page.text, *(value for _, attributes in page.elements for value in attributes.values() if value)]
    assert any(EVIL in text for text in told)


def test_an_error_is_told_in_words_and_to_screen_readers():
    page = Page(pieces.message("There is no file.", "error"))
    assert page.text == "That did not work. There is no file."
    assert page.of("div")[0]["role"] == "alert"
    assert pieces.message("", "error") == ""


def test_an_explanation_names_the_words_and_their_probabilities():
    words = (("cat", 0.625), ("dog", 0.0004))
    explanation = explained("cat", words, score=0.625, is_own_score=False, share=0.25, void=0.3746)
    page = Page(pieces.explanation_piece(PICTURE, explanation, "adapter"))
    assert "Probability 0.62 of the mask that decides most here; 25.0 % of the picture." in page.text
    for row in ("cat62.5 %", "dog< 0.1 %", "nothing of these37.5 %"):
        assert row in page.text
    assert page.of("img")[0]["alt"].startswith("Heat over the picture. Where the Mask-Adapter looks")
    of_pooling = Page(pieces.explanation_piece(PICTURE, explained(), "pooling"))
    assert "Score 0.50; 100.0 % of the picture." in of_pooling.text
    assert "Mask pooling weighs every place of the mask alike" in of_pooling.text


def test_a_download_is_in_the_link_itself():
    (link,) = Page(pieces.downloads_piece([Download("JSON", "a.json", "application/json", b"{}")])).of("a")
    assert link["download"] == "a.json"
    assert link["href"] == "data:application/json;base64,e30="


def test_a_comparison_tells_what_pooling_says_and_where_it_finds_nothing():
    page = Page(pieces.comparison_piece(PICTURE, compared(Difference("cat", None, 0.75, 9))))
    assert "100.0 % of the picture is called differently" in page.text
    assert " catnothing found75.0 %" in page.text


def test_a_comparison_without_differences_says_so():
    page = Page(pieces.comparison_piece(PICTURE, compared()))
    assert "0.0 % of the picture is called differently" in page.text
    assert "No segment is called differently as a whole." in page.text
