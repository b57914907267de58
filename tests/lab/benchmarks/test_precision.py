"""What reduced precision costs, counted picture by picture."""

import numpy as np
import pytest

from hf_maskadapter.evaluation.counts import MethodCounts, SegmentCounts
from hf_maskadapter.evaluation.functional.mean_iou import count_confusions
from hf_maskadapter.evaluation.functional.panoptic_quality import match_panoptic
from hf_maskadapter.evaluation.predictors import NO_CLASS
from lab.benchmarks import precision
from lab.benchmarks.precision import PRECISIONS, Counts, Options, count_all


def test_numbers_are_those_of_all_pictures_together():
    counts = Counts()
    truth = np.array([[0, 0, 1, 1], [NO_CLASS, 0, 1, 1]])
    for found, right in ((np.array([[0, 1, 1, 1], [0, 0, 1, 1]]), 1), (truth, 2)):
        segments = [{"id": 1, "category_id": 0, "isthing": True}, {"id": 2, "category_id": 1, "isthing": True}]
        panoptic, annotation = (
            {"segmentation": np.where(one == NO_CLASS, 0, one + 1), "segments_info": segments} for one in (found, truth)
        )
        counts.add(
            MethodCounts(segments=SegmentCounts(np.array([right - 1, 1]), np.array([1, 1]))),
            MethodCounts(semantic=count_confusions(found, truth), panoptic=match_panoptic(panoptic, annotation)),
            2,
        )
    values = {name: estimate.value for name, estimate in counts.estimates().items()}
    assert values["masks right"] == pytest.approx(100 * 3 / 4)
    assert values["mIoU"] == pytest.approx(100 * (5 / 6 + 8 / 9) / 2)
    # Class 0: IoU 2/3 and 1; class 1: 4/5 and 1; every segment is matched, and void pixels do not count.
    assert values["PQ"] == pytest.approx(100 * ((2 / 3 + 1) / 2 + (4 / 5 + 1) / 2) / 2)


@pytest.mark.slow
def test_every_precision_sees_the_same_pictures():
    lines = []
    table = precision.run(Options(pictures=2), lines.append)
    assert len(lines) == len(PRECISIONS)
    assert [row.split("|")[3].strip() for row in table.splitlines()[2:]] == list(PRECISIONS)
    counts = count_all(Options(pictures=2), "scenes")
    assert len({tuple(of_one.masks) for of_one in counts.values()}) == 1
    assert counts["bfloat16"].labels != [], "masks were classified"
