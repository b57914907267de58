"""A picture's result on which other tools are tried, and masks as their runs of pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from support.result_samples import box

SIZE = (12, 16)  # a landscape picture: swapped rows and columns would be seen

SKY = box(SIZE, 0, 12, 0, 16)
RING = box(SIZE, 2, 9, 3, 12) & ~box(SIZE, 4, 6, 6, 9)  # 57 pixels, with a hole of 6
PARTS = box(SIZE, 5, 6, 4, 15) | box(SIZE, 10, 12, 1, 3) | box(SIZE, 0, 1, 15, 16)  # a line, a block and a dot
CROWD = box(SIZE, 8, 12, 8, 16)


def scene(vocabulary: Vocabulary, overlapping: bool = True) -> Segments:
    """Sky, a cat with a hole, a dog in parts that lies over both, and a crowd of dogs over the cat.

    Args:
        vocabulary: sky, cat, dog.
        overlapping: otherwise each pixel is of the uppermost segment alone.
    """
    found = [(0, SKY, False), (1, RING, False), (2, PARTS, False), (2, CROWD, True)]
    segments = [Segment.of_class(vocabulary, label, mask, is_crowd=is_crowd) for label, mask, is_crowd in found]
    result = Segments(segments, SIZE, vocabulary, picture="a.png")
    if overlapping:
        return result
    places = result.segment_map()
    visible = [
        Segment.of_class(vocabulary, segment.class_id, places == place, is_crowd=segment.is_crowd)
        for place, segment in enumerate(result, start=1)
    ]
    return Segments(visible, SIZE, vocabulary, picture="a.png")


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask, row by row, background first."""
    text = "".join("x" if value else " " for value in mask.ravel())
    lengths = [0]
    for before, value in zip(" " + text, text, strict=False):
        if before != value:
            lengths.append(0)
        lengths[-1] += 1
    return lengths


def save_picture(folder: Path, name: str = "a.png") -> None:
    """A picture of the result's size, which some tools want to see."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(path)
