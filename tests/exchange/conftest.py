"""Results to write and read back."""

import pytest

from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from support.result_samples import discs


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.from_list([["sky"], ["dog & <cat>"], ['Haus, "groß"']], things=[False, True, True])


@pytest.fixture
def results(vocabulary) -> list[Segments]:
    """Two pictures of different sizes in different folders, and one without segments."""
    pictures = []
    for name, height, width in (("a.jpg", 40, 60), ("sub/b ü.png", 33, 17)):
        band, disc, corner = discs(height, width)
        found = ((0, band, 0.5), (1, disc, 0.25), (1, corner, 0.75))
        segments = [Segment.of_class(vocabulary, class_id, mask, score=score) for class_id, mask, score in found]
        pictures.append(Segments(segments, (height, width), vocabulary, picture=name))
    return [*pictures, Segments([], (5, 7), vocabulary, picture="nothing.png")]
