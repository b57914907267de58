"""Results to write and read back."""

import pytest

from hf_maskadapter.exchange import PictureResult, ResultSegment
from hf_maskadapter.model.vocabulary import Vocabulary
from support.result_samples import discs


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.from_list([["sky"], ["dog & <cat>"], ['Haus, "groß"']], things=[False, True, True])


@pytest.fixture
def results() -> list[PictureResult]:
    """Two pictures of different sizes in different folders, and one without segments."""
    pictures = []
    for name, height, width in (("a.jpg", 40, 60), ("sub/b ü.png", 33, 17)):
        band, disc, corner = discs(height, width)
        segments = (ResultSegment(0, band, 0.5), ResultSegment(1, disc, 0.25), ResultSegment(1, corner, 0.75))
        pictures.append(PictureResult(name, height, width, segments))
    return [*pictures, PictureResult("nothing.png", 5, 7, ())]
