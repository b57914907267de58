"""A data set in memory and a predictor without a model, for the tests of the evaluation loop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_maskadapter.cli.errors import leave_process_group
from hf_maskadapter.data import SegmentationSample, SegmentInfo
from hf_maskadapter.evaluation.predictors import EvaluationItem, Method, Prediction, Predictor, label_segments
from hf_maskadapter.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_list(["dog", "cat", "sky", "grass"], things=[True, True, False, False])


def make_sample(index: int) -> SegmentationSample:
    """A panoptic sample: two stuff areas, two or three things, one of them sometimes a crowd, and void."""
    rng = np.random.default_rng(index)
    height, width = ((20, 30), (24, 30), (20, 30), (26, 18))[index % 4]
    segmentation = np.ones((height, width), np.int32)
    segmentation[height // 2 :] = 2
    segments = [SegmentInfo(1, 2, False), SegmentInfo(2, 3, False)]
    for number in range(3, 5 + index % 2):
        top, left = int(rng.integers(0, height - 6)), int(rng.integers(0, width - 6))
        segmentation[top : top + 6, left : left + 6] = number
        segments.append(SegmentInfo(number, int(rng.integers(0, 2)), True, iscrowd=number == 5))
    segmentation[:, -1] = 0
    present = set(np.unique(segmentation).tolist())
    return SegmentationSample(
        sample_id=f"sample{index}",
        image=Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)),
        segmentation=segmentation,
        segments_info=tuple(segment for segment in segments if segment.id in present),
        has_instances=True,
        file_name=f"folder/sample{index}.jpg",
    )


class SampleList:
    """Samples with what a data set tells about itself."""

    def __init__(self, size: int = 11, vocabulary: Vocabulary = VOCABULARY, name: str = "test set"):
        self.samples = [make_sample(index) for index in range(size)]
        self.vocabulary, self.name, self.has_instances = vocabulary, name, True

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> SegmentationSample:
        return self.samples[index]


def prepare(sample: SegmentationSample):
    """No inputs; pictures of one size form a group."""
    return None, sample.size


class LabelPredictor(Predictor):
    """Predicts the annotated segments, some with a wrong class, differently by method; remembers its batches.

    Args:
        right: decides for (index of the sample, number of the segment, method) whether its class is right.
        before: called with each batch before it is predicted.
    """

    def __init__(
        self,
        right: Callable[[int, int, str], bool] = lambda index, number, method: (index + number + len(method)) % 3 > 0,
        before: Callable[[Sequence[int]], None] = lambda indices: None,
        tasks=("semantic", "panoptic", "instance"),
        methods=("one", "other"),
    ):
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.model.weight)
        self.vocabulary, self.tasks = VOCABULARY, tuple(tasks)
        self.methods = tuple(Method(name) for name in methods)
        self.seen_classes = [True, False, True, False]
        self.prepare = prepare
        self.right, self.before = right, before
        self.batches: list[list[int]] = []

    def describe(self):
        return {"predictor": "labels"}

    def predict(self, items):
        self.before([item.index for item in items])
        self.batches.append([item.index for item in items])
        assert len({item.group for item in items}) == 1
        return {method.name: [self._predict(item, method.name) for item in items] for method in self.methods}

    def _predict(self, item, method: str) -> Prediction:
        labels, scores = [], []
        for number, segment in enumerate(item.sample.segments_info):
            right = self.right(item.index, number, method)
            labels.append(segment.category_id if right else (segment.category_id + 1) % len(self.vocabulary))
            scores.append((1 + item.index % 3) / 4)
        prediction = label_segments(item.sample, labels, scores, self.vocabulary)
        prediction.segment_labels = None
        return prediction


def main(folder: str) -> None:
    """One process of several that evaluate together; writes what it found."""
    from hf_maskadapter.evaluation import evaluate_model

    result = evaluate_model(LabelPredictor(), SampleList(), show_progress=False, output_dir=folder, num_worst=3)
    content = {name: getattr(result, name) for name in ("methods", "worst", "num_resumed")}
    content["pictures"] = [str(path) for path in result.pictures]
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(sys.argv[1])
    leave_process_group()


def items_of(predictor: Predictor, samples) -> list[EvaluationItem]:
    """Samples as the evaluation loop prepares them."""
    return [EvaluationItem(index, sample, *predictor.prepare(sample)) for index, sample in enumerate(samples)]


def predict(predictor: Predictor, samples) -> dict[str, list[Prediction]]:
    """Predictions of each method for some samples."""
    with torch.inference_mode():
        return predictor.predict(items_of(predictor, samples))
