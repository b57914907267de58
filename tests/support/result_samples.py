"""Results of pictures for the tests of their formats."""

import numpy as np

from hf_maskadapter.model.segments import Segments


def discs(height: int, width: int) -> np.ndarray:
    """Three masks that do not overlap: a band, and two discs, one of which touches two edges."""
    rows, columns = np.mgrid[:height, :width]
    band = rows < height // 4
    disc = ~band & ((rows - height * 0.6) ** 2 + (columns - width * 0.3) ** 2 < (min(height, width) * 0.2) ** 2)
    corner = ~band & ~disc & ((rows - height) ** 2 + (columns - width) ** 2 < (min(height, width) * 0.4) ** 2)
    return np.stack([band, disc, corner])


def assert_equal(result: Segments, expected: Segments, scores: bool = True) -> None:
    """The same segments, in any order."""

    def content(picture: Segments) -> list:
        return sorted(
            (segment.class_id, segment.mask.tobytes(), segment.score if scores else None)
            for segment in picture.segments
        )

    assert (result.picture, result.size) == (expected.picture, expected.size)
    assert content(result) == content(expected)
