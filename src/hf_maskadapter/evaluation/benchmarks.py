"""The field's benchmarks as data: what to download, classes, resizing, and published numbers to compare with.

Published mIoU are those of the Mask-Adapter paper (arXiv 2412.04533). What a model brings along stays the model's:
thresholds, ensemble weights, and the size of its input, unless a benchmark sets its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.loading import load_segmentation_dataset
from ..data.raw_layouts import RAW_LAYOUTS, PanopticAnnotation, RawLayout
from ..data.samples import IGNORE_INDEX, DataError, SampleReader, SegmentationSample
from ..data.scenes import SceneDataset, scene_vocabulary
from ..hub.published import PUBLISHED, TITLES
from ..model.vocabulary import Vocabulary
from .predictors import Task


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name: What users choose it by.
        title: What results call it.
        layout: How the download with its label maps is laid out, one of `RAW_LAYOUTS`; or None if there are none.
        panoptic_layout: The same of the panoptic annotation; None if there is none.
        synonyms_file: Name of the prompt-engineered list of OpenSeg and FC-CLIP with which published numbers were
            measured. It is not part of the package; users who have it name it.
        tasks: What is usually measured.
        resize_scores: Whether published numbers come from scores that were computed at the input's size and then
            resized (sets measured by mIoU alone), rather than from resized masks.
        image_size: Shorter and longer side of the input in pixels, where the benchmark and not the model sets it.
        published: mIoU in per cent by model.
        published_annotated: mIoU in per cent with annotated masks by `Method` name.
        split: The split that is evaluated.
    """

    name: str
    title: str
    layout: str | None
    panoptic_layout: str | None = None
    synonyms_file: str | None = None
    tasks: tuple[Task, ...] = ("semantic",)
    resize_scores: bool = True
    image_size: tuple[int, int] | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    published_annotated: Mapping[str, float] = field(default_factory=dict)
    split: str = "validation"

    def layout_for(self, tasks: Sequence[Task]) -> str:
        """Name of the layout with the annotation that tasks need; label maps wherever they are enough.

        Raises:
            ValueError: The benchmark has no such annotation.
        """
        if (tuple(tasks) == ("semantic",) or self.panoptic_layout is None) and self.layout is not None:
            layout = self.layout
        else:
            assert self.panoptic_layout is not None
            layout = self.panoptic_layout
        if not RAW_LAYOUTS[layout].panoptic and tuple(tasks) != ("semantic",):
            raise ValueError(f"{self.title} has semantic annotation only: measure it with the task 'semantic'.")
        return layout

    @property
    def label_set(self) -> str:
        """Name of the built-in label set."""
        return RAW_LAYOUTS[self.layout or self.panoptic_layout or ""].label_set

    def vocabulary(self, synonyms_file: str | Path | None = None) -> Vocabulary:
        """The classes, on request with the synonyms of a file."""
        return Vocabulary.from_label_set(self.label_set, synonyms_file)

    def instructions(self) -> str:
        """What to download and where to put it."""
        layouts = [layout for layout in (self.layout, self.panoptic_layout) if layout is not None]
        lines = [f"{self.title}: {len(self.vocabulary())} classes, split {self.split!r}, tasks {', '.join(self.tasks)}"]
        lines += [f"  {layout}: {RAW_LAYOUTS[layout].files}" for layout in dict.fromkeys(layouts)]
        if self.synonyms_file is not None:
            lines.append(f"  --vocabulary for published numbers: {self.synonyms_file} of OpenSeg or FC-CLIP")
        return "\n".join(lines)

    def open(
        self, data_dir: str | Path, tasks: Sequence[Task] | None = None, synonyms_file: str | Path | None = None
    ) -> Any:
        """Opens its data.

        Args:
            data_dir: The folder with the download, or what ``maskadapter prepare`` made of it.
            tasks: What is to be measured; default: the benchmark's tasks.
            synonyms_file: A list of synonyms for each class.

        Returns:
            A `SegmentationDataset`, or a `RawDataset` if the download was not prepared.

        Raises:
            DataError: Files are missing or damaged; the message says what to download.
            ValueError: The benchmark has no annotation for a task, or the file is not for its classes.
        """
        layout = self.layout_for(self.tasks if tasks is None else tasks)
        vocabulary = self.vocabulary(synonyms_file)
        root = Path(data_dir)
        if (root / "vocabulary.json").is_file():
            dataset = load_segmentation_dataset(root, vocabulary, split=self.split)
            if dataset.has_instances != RAW_LAYOUTS[layout].panoptic:
                raise DataError(
                    f"{root} was prepared with {'panoptic maps' if dataset.has_instances else 'label maps'}, but these "
                    f"tasks need the layout {layout!r}: prepare that, or give the folder with the download itself."
                )
            return dataset
        try:
            return RawDataset(RAW_LAYOUTS[layout], root, self.split, vocabulary, self.title)
        except DataError as error:
            raise DataError(f"{error}\n{self.title} needs, in {root}: {RAW_LAYOUTS[layout].files}.") from error


class RawDataset:
    """A benchmark's download, read as it is: a sequence of `SegmentationSample`.

    Args:
        layout: How it is laid out.
        root: The folder with the download.
        split: ``"train"`` or ``"validation"``.
        vocabulary: The layout's classes, possibly with other synonyms.
        name: What messages call it.

    Raises:
        DataError: Files are missing, or the split is empty.
    """

    def __init__(self, layout: RawLayout, root: Path, split: str, vocabulary: Vocabulary, name: str):
        if not root.is_dir():
            raise DataError(f"There is no folder {root}.")
        self.layout, self.root, self.vocabulary, self.name = layout, root, vocabulary, name
        self.has_instances = layout.panoptic
        try:
            self._records = sorted(layout.records(root, split), key=lambda record: record.id)
        except OSError as error:
            raise DataError(f"{root}: {error}") from error
        if not self._records:
            raise DataError(f"{root}: the split {split!r} is empty.")

    @cached_property
    def _reader(self) -> SampleReader:
        panoptic = self.layout.panoptic
        return SampleReader(
            self.vocabulary,
            label_column=None if panoptic else "annotation",
            panoptic_column="annotation" if panoptic else None,
            segments_column="segments_info" if panoptic else None,
            id_column="id",
            ignore_values=(IGNORE_INDEX,),
            name=self.name,
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> SegmentationSample:
        record = self._records[index]
        annotation = record.read()
        row: dict[str, Any] = {"id": record.id, "image": str(record.image)}
        if isinstance(annotation, PanopticAnnotation):
            row |= {"annotation": annotation.ids, "segments_info": annotation.segments}
        else:
            row |= {"annotation": annotation}
        return self._reader(row)


class SceneSamples:
    """Scenes of the miniature world, drawn when they are read: a sequence of `SegmentationSample`.

    Args:
        split: One of `hf_maskadapter.data.scenes.SPLITS`.
        num_scenes: How many.
        seed: Another seed gives other scenes of the same split.
    """

    has_instances = True

    def __init__(self, split: str = "test", num_scenes: int = 300, seed: int = 0):
        self._scenes = SceneDataset(split, num_scenes, seed=seed)
        self.vocabulary = scene_vocabulary()
        self.name = f"miniature scenes, split {split!r}, seed {seed}"
        self._reader = SampleReader(
            self.vocabulary,
            panoptic_column="panoptic_map",
            segments_column="segments_info",
            id_column="image_id",
            name=self.name,
        )

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> SegmentationSample:
        return self._reader(self._scenes[index])


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "ade20k_150",
            TITLES["ade20k_150"],
            "ade20k_150",
            panoptic_layout="ade20k_150_panoptic",
            synonyms_file="ade20k_150_with_prompt_eng.txt",
            resize_scores=False,
            published=PUBLISHED["ade20k_150"],
            published_annotated={"crop": 47.0, "pooling": 51.0},
        ),
        Benchmark(
            "ade20k_847",
            TITLES["ade20k_847"],
            "ade20k_847",
            synonyms_file="ade20k_847_with_prompt_eng.txt",
            published=PUBLISHED["ade20k_847"],
        ),
        Benchmark(
            "pascal_context_59",
            TITLES["pascal_context_59"],
            "pascal_context_59",
            synonyms_file="pascal_ctx_59_with_prompt_eng.txt",
            published=PUBLISHED["pascal_context_59"],
        ),
        Benchmark(
            "pascal_context_459",
            TITLES["pascal_context_459"],
            "pascal_context_459",
            synonyms_file="pascal_ctx_459_with_prompt_eng.txt",
            published=PUBLISHED["pascal_context_459"],
        ),
        Benchmark(
            "pascal_voc_20",
            TITLES["pascal_voc_20"],
            "pascal_voc_20",
            synonyms_file="pascal_voc_21_with_prompt_eng.txt",
            published=PUBLISHED["pascal_voc_20"],
        ),
        Benchmark(
            "pascal_voc_21",
            "PAS-21 (Pascal VOC 2012)",
            "pascal_voc_21",
            synonyms_file="pascal_voc_21_with_prompt_eng.txt",
        ),
        Benchmark(
            "coco_panoptic_133",
            "COCO panoptic 2017",
            None,
            panoptic_layout="coco_panoptic_133",
            synonyms_file="coco_panoptic_with_prompt_eng.txt",
            tasks=("semantic", "panoptic", "instance"),
            resize_scores=False,
        ),
        Benchmark(
            "cityscapes_19",
            "Cityscapes",
            "cityscapes_19",
            panoptic_layout="cityscapes_19_panoptic",
            synonyms_file="cityscapes_with_prompt_eng.txt",
            resize_scores=False,
            image_size=(1024, 2560),
        ),
    )
}
"""The benchmarks by name."""


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ValueError: There is none.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"There is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


__all__ = ["BENCHMARKS", "Benchmark", "RawDataset", "SceneSamples", "get_benchmark"]
