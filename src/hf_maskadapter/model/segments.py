"""The result of segmenting a picture: named masks, in the one form that everything here gives and takes.

Post-processing gives [`Segments`], the pipeline and the commands hand them on, pictures are painted of them, other
tools' files are written from them and read to them.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from .class_colors import class_color
from .label_maps import distinct_segments
from .masks import as_array, binary_mask
from .vocabulary import Vocabulary

Task = Literal["semantic", "panoptic", "instance"]
TASKS = ("semantic", "panoptic", "instance")

_SHOWN_SIDE = 480  # of the picture that a notebook shows, in pixels
_SHOWN_ROWS = 50


@dataclass(frozen=True, eq=False, repr=False)
class Segment:
    """One segment of a picture.

    Args:
        class_id: its class, an index into the vocabulary.
        label: the class's name.
        mask: `(height, width)`, at the picture's size; booleans, or what else [`binary_mask`] reads: 0 and 1, 0 and
            255, soft values of which more than 0.5 is inside. An array, a tensor or a PIL picture; kept as booleans.
        score: the model's confidence, 0 to 1, where there is one.
        is_crowd: whether it covers a group of objects that are not told apart, as in COCO.
        is_thing: whether it is a countable object or "stuff", where that is known.
        embedding: `(embed_dim,)`, the normalised mask embedding in CLIP's space, where it was asked for.

    Raises:
        ValueError: if the mask has another shape or other values, or the score is not finite.
    """

    class_id: int
    label: str
    mask: np.ndarray
    score: float | None = None
    is_crowd: bool = False
    is_thing: bool | None = None
    embedding: np.ndarray | None = None

    def __post_init__(self) -> None:
        mask = binary_mask(self.mask)
        if mask.ndim != 2:
            raise ValueError(f"The mask of a segment has shape (height, width), got {mask.shape}.")
        object.__setattr__(self, "class_id", int(self.class_id))
        object.__setattr__(self, "mask", mask)
        if self.score is not None:
            object.__setattr__(self, "score", float(self.score))
        if self.embedding is not None:
            object.__setattr__(self, "embedding", as_array(self.embedding))
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"The score of a segment must be a finite number, got {self.score}.")

    @classmethod
    def of_class(cls, vocabulary: Vocabulary, class_id: int, mask: Any, **fields: Any) -> Segment:
        """A segment whose label, and whether it is a thing, the vocabulary tells.

        Args:
            vocabulary: the classes.
            class_id: index of the segment's class.
            mask: see above.
            **fields: `score`, `is_crowd`, `embedding`.

        Raises:
            ValueError: if the vocabulary has no such class.
        """
        if not 0 <= class_id < len(vocabulary):
            raise ValueError(f"There is no class {class_id}: the vocabulary has {len(vocabulary)}, counted from 0.")
        entry = vocabulary.classes[class_id]
        return cls(class_id, entry.name, mask, is_thing=entry.is_thing, **fields)

    def __repr__(self) -> str:
        score = "" if self.score is None else f" {self.score:.2f}"
        crowd = ", crowd" if self.is_crowd else ""
        left, top, width, height = self.box
        return f"Segment({self.label}{score}, {self.area} pixels in {width}x{height} at ({left}, {top}){crowd})"

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the smallest box around the mask, in pixels; zeros for an empty one."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


@dataclass(frozen=True, eq=False, repr=False)
class Segments(Sequence[Segment]):
    """The segments of one picture: a sequence of [`Segment`], with the size and the classes that they refer to.

    They may overlap; later ones lie on top. Results of a model that overlap come with the smaller ones on top, see
    [`Segments.best_first`] for another order. In a notebook they show themselves.

    Args:
        segments: the segments; none may be empty.
        size: height and width in pixels of the picture as a viewer shows it.
        vocabulary: the classes.
        task: what kind of result this is, `"semantic"`, `"panoptic"` or `"instance"`, where that is known.
        picture: the picture's file name, as other tools are to know it; folders are separated by `/`.

    Raises:
        ValueError: if a mask is empty or not of the picture's size, or a label not the vocabulary's; the message names
            picture and segment.
    """

    segments: Sequence[Segment]
    size: tuple[int, int]
    vocabulary: Vocabulary
    task: str | None = None
    picture: str | None = None

    def __post_init__(self) -> None:
        height, width = (int(side) for side in self.size)
        object.__setattr__(self, "size", (height, width))
        object.__setattr__(self, "segments", tuple(self.segments))
        names = self.vocabulary.names
        for number, segment in enumerate(self.segments):
            where = (
                f"segment {number} ({segment.label})"
                if self.picture is None
                else (f"{self.picture}, segment {number} ({segment.label})")
            )
            if segment.mask.shape != self.size:
                raise ValueError(
                    f"{where}: its mask has shape {segment.mask.shape}, but the picture is {height} pixels high and "
                    f"{width} wide."
                )
            if not segment.mask.any():
                raise ValueError(f"{where}: its mask is empty; leave such segments out.")
            if not 0 <= segment.class_id < len(names) or names[segment.class_id] != segment.label:
                raise ValueError(
                    f"{where}: class {segment.class_id} of the vocabulary is not called {segment.label!r}."
                )

    @classmethod
    def from_pipeline(
        cls,
        results: Sequence[Mapping[str, Any]],
        size: tuple[int, int],
        vocabulary: Vocabulary,
        task: str | None = None,
        picture: str | None = None,
    ) -> Segments:
        """What a segmentation pipeline returns for a picture, with the smaller ones on top.

        Args:
            results: dicts with `label` and `mask`, and optionally `score`. Empty masks are left out.
            size: height and width of the picture.
            vocabulary: the candidate labels.
            task: see above.
            picture: see above.

        Raises:
            ValueError: if a label is not in the vocabulary, or a mask not of the picture's size.
        """
        index_of = {name: index for index, name in enumerate(vocabulary.names)}
        found = []
        for result in results:
            if result["label"] not in index_of:
                raise ValueError(f"The label {result['label']!r} is none of the vocabulary {', '.join(index_of)}.")
            class_id = index_of[result["label"]]
            segment = Segment.of_class(vocabulary, class_id, result["mask"], score=result.get("score"))
            if segment.area:
                found.append(segment)
        return cls(found, size, vocabulary, task, picture).smaller_on_top()

    @classmethod
    def from_segmentation(
        cls,
        segmentation: Any,
        segments_info: Sequence[Mapping[str, Any]],
        vocabulary: Vocabulary,
        task: str | None = None,
        picture: str | None = None,
    ) -> Segments:
        """What `post_process_panoptic_segmentation` returns for a picture.

        Args:
            segmentation: `(height, width)` segment ids, an array or a tensor.
            segments_info: `id`, `label_id` and optionally `score` and `iscrowd` of each segment. Those without pixels
                are left out.
            vocabulary: the classes that `label_id` counts.
            task: see above.
            picture: see above.

        Raises:
            ValueError: if the vocabulary lacks a class, the map is none, or one id is that of two classes.
        """
        ids = as_array(segmentation)
        if ids.ndim != 2:
            raise ValueError(f"A map of segment ids has shape (height, width), got {ids.shape}.")
        found = []
        for info in distinct_segments(segments_info):
            mask = ids == info["id"]
            if mask.any():
                fields = {"score": info.get("score"), "is_crowd": bool(info.get("iscrowd", False))}
                found.append(Segment.of_class(vocabulary, info["label_id"], mask, **fields))
        return cls(found, ids.shape, vocabulary, task, picture)

    @classmethod
    def from_label_map(
        cls,
        label_map: Any,
        vocabulary: Vocabulary,
        ignore_index: int | None = 255,
        picture: str | None = None,
    ) -> Segments:
        """What `post_process_semantic_segmentation` returns for a picture: a segment for each class that occurs.

        Args:
            label_map: `(height, width)` class indices, an array or a tensor.
            vocabulary: the classes.
            ignore_index: value of pixels without a class. Negative ones have none either.
            picture: see above.

        Raises:
            ValueError: if the vocabulary lacks a class, or the map is none.
        """
        values = as_array(label_map)
        if values.ndim != 2:
            raise ValueError(f"A label map has shape (height, width), got {values.shape}.")
        present = [int(value) for value in np.unique(values) if value >= 0 and value != ignore_index]
        found = [Segment.of_class(vocabulary, value, values == value) for value in present]
        return cls(found, values.shape, vocabulary, "semantic", picture)

    @classmethod
    def from_classified_masks(
        cls,
        masks: Sequence[Any],
        vocabulary: Vocabulary,
        size: tuple[int, int] | None = None,
        picture: str | None = None,
    ) -> Segments:
        """What [`classify_masks`] returns for a picture, in the same order.

        Args:
            masks: of one picture.
            vocabulary: the classes that they were given, also where that was an encoded vocabulary.
            size: height and width of the picture; needed only where there is no mask.
            picture: see above.

        Raises:
            ValueError: if the vocabulary lacks a class, or there is neither a mask nor a size.
        """
        if size is None:
            if not masks:
                raise ValueError("There is no mask, so that the picture's size must be given: size=(height, width).")
            size = masks[0].mask.shape
        found = [
            Segment.of_class(vocabulary, one.label_id, one.mask, score=one.score, embedding=one.embedding)
            for one in masks
        ]
        return cls(found, size, vocabulary, picture=picture)

    def __len__(self) -> int:
        return len(self.segments)

    @overload
    def __getitem__(self, index: int) -> Segment: ...

    @overload
    def __getitem__(self, index: slice) -> Segments: ...

    def __getitem__(self, index: int | slice) -> Segment | Segments:
        if isinstance(index, slice):
            return self._with(self.segments[index])
        return self.segments[index]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for segment in self:
            counts[segment.label] = counts.get(segment.label, 0) + 1
        names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing found"
        of_what = " ".join(part for part in (self.task, self.picture) if part)
        return f"Segments({of_what + ', ' if of_what else ''}{self.height}x{self.width}: {shown})"

    def _with(self, segments: Sequence[Segment]) -> Segments:
        return replace(self, segments=segments)

    @property
    def height(self) -> int:
        """Of the picture, in pixels."""
        return self.size[0]

    @property
    def width(self) -> int:
        """Of the picture, in pixels."""
        return self.size[1]

    @property
    def labels(self) -> list[str]:
        """Name of each segment's class."""
        return [segment.label for segment in self]

    @property
    def class_ids(self) -> np.ndarray:
        """`(num_segments,)` int64: class of each segment, an index into the vocabulary."""
        return np.array([segment.class_id for segment in self], dtype=np.int64)

    @property
    def scores(self) -> np.ndarray:
        """`(num_segments,)` float64: score of each segment, NaN where there is none."""
        return np.array([np.nan if segment.score is None else segment.score for segment in self], dtype=np.float64)

    @property
    def masks(self) -> np.ndarray:
        """`(num_segments, height, width)` bool: the whole masks, what lies under others included."""
        return np.stack([segment.mask for segment in self]) if self.segments else np.zeros((0, *self.size), dtype=bool)

    @property
    def areas(self) -> np.ndarray:
        """`(num_segments,)` int64: pixels of each whole mask."""
        return np.array([segment.area for segment in self], dtype=np.int64)

    def boxes(self, form: str = "xyxy") -> np.ndarray:
        """The smallest box around each mask.

        Args:
            form: `"xyxy"` for left, top, right and bottom; `"xywh"` for left, top, width and height, as in COCO. They
                are the edges of pixels: right is left + width, so that a mask of one pixel has width 1.

        Returns:
            `(num_segments, 4)` int64, in pixels.

        Raises:
            ValueError: if there is no such form.
        """
        if form not in ("xyxy", "xywh"):
            raise ValueError(f'The form of boxes is "xyxy" or "xywh", got {form!r}.')
        boxes = np.array([segment.box for segment in self], dtype=np.int64).reshape(-1, 4)
        if form == "xyxy":
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def segment_map(self) -> np.ndarray:
        """`(height, width)` int32: place of each pixel's uppermost segment, counted from 1; 0 where there is none."""
        ids = np.zeros(self.size, dtype=np.int32)
        for number, segment in enumerate(self, start=1):
            ids[segment.mask] = number
        return ids

    def label_map(self, ignore_index: int = 255) -> np.ndarray:
        """`(height, width)` int32: class of each pixel's uppermost segment, `ignore_index` where there is none.

        Raises:
            ValueError: if `ignore_index` is a class that occurs here.
        """
        if ignore_index in self.class_ids:
            raise ValueError(
                f"{ignore_index} is a class of this vocabulary of {len(self.vocabulary)}: choose another ignore_index."
            )
        classes = np.array([ignore_index, *self.class_ids], dtype=np.int32)
        return classes[self.segment_map()]

    def panoptic_map(self) -> dict[str, Any]:
        """A map in which no segments overlap, in the form of `post_process_panoptic_segmentation`.

        Returns:
            A dict with `segmentation`, `(height, width)` int32 ids from 1 on and 0 where there is no segment, and
            `segments_info`, dicts with `id`, `label_id`, `score` and `iscrowd`. Segments that lie wholly under others
            are left out; the ids of the others do not change by that.
        """
        ids = self.segment_map()
        visible = np.unique(ids)
        infos = [
            {"id": number, "label_id": segment.class_id, "score": segment.score, "iscrowd": int(segment.is_crowd)}
            for number, segment in enumerate(self, start=1)
            if number in visible
        ]
        return {"segmentation": ids, "segments_info": infos}

    def filter(
        self, labels: str | Collection[str] | None = None, min_score: float | None = None, min_area: int | None = None
    ) -> Segments:
        """Some of the segments, in their order.

        Args:
            labels: names of the classes to keep; by default all.
            min_score: least score to keep.
            min_area: least number of pixels to keep.

        Raises:
            ValueError: if the vocabulary lacks a label, or a least score is asked for and a segment has none.
        """
        wanted = {labels} if isinstance(labels, str) else None if labels is None else set(labels)
        unknown = (wanted or set()).difference(self.vocabulary.names)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no labels of the vocabulary: {', '.join(self.vocabulary.names)}.")
        kept = [segment for segment in self if wanted is None or segment.label in wanted]
        if min_score is not None:
            without = next((segment for segment in kept if segment.score is None), None)
            if without is not None:
                raise ValueError(
                    f"{without!r} has no score, as segments of semantic results have none: leave min_score out."
                )
            kept = [segment for segment in kept if segment.score is not None and segment.score >= min_score]
        return self._with([segment for segment in kept if min_area is None or segment.area >= min_area])

    def smaller_on_top(self) -> Segments:
        """The same segments by area, the largest first, so that small ones are not hidden by large ones."""
        return self._with(sorted(self.segments, key=lambda segment: -segment.area))

    def best_first(self) -> list[Segment]:
        """The segments by score, the highest first; those without a score come last."""
        return sorted(self.segments, key=lambda segment: -1.0 if segment.score is None else segment.score, reverse=True)

    def to_pipeline(self) -> list[dict[str, Any]]:
        """The segments in the form of Transformers' segmentation pipelines.

        Returns:
            Dicts with `score`, `label` and `mask`, a PIL picture of mode "L", 255 inside.
        """
        return [
            {
                "score": segment.score,
                "label": segment.label,
                "mask": Image.fromarray(segment.mask.astype(np.uint8) * 255),
            }
            for segment in self
        ]

    def to_supervision(self) -> Any:
        """The segments as `supervision.Detections`.

        Boxes are the edges of pixels ([`Segments.boxes`]), where `supervision.mask_to_xyxy` gives the last pixel.
        `data` holds `class_name` and `iscrowd`.

        Raises:
            ImportError: if the library supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs the library supervision: pip install supervision") from error
        scores = self.scores
        return supervision.Detections(
            xyxy=self.boxes("xyxy").astype(np.float32),
            mask=self.masks,
            confidence=None if np.isnan(scores).any() else scores.astype(np.float32),
            class_id=self.class_ids,
            data={
                "class_name": np.array(self.labels, dtype=str),
                "iscrowd": np.array([int(segment.is_crowd) for segment in self], dtype=np.int64),
            },
        )

    def to_pandas(self) -> Any:
        """The segments as a table, a `pandas.DataFrame` with a row for each.

        Returns:
            Its columns are `class_id`, `label`, `score` (NaN where there is none), `area` in pixels, `left`, `top`,
            `width` and `height` of the box in pixels, `is_crowd` and `is_thing` (`None` where it is not known).

        Raises:
            ImportError: if the library pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs the library pandas: pip install pandas") from error
        left, top, width, height = self.boxes("xywh").T
        return pandas.DataFrame(
            {
                "class_id": self.class_ids,
                "label": self.labels,
                "score": self.scores,
                "area": self.areas,
                "left": left,
                "top": top,
                "width": width,
                "height": height,
                "is_crowd": np.array([segment.is_crowd for segment in self], dtype=bool),
                "is_thing": np.array([segment.is_thing for segment in self], dtype=object),
            }
        )

    def color_map(self) -> Image.Image:
        """A picture of the segments alone, each in its class's colour; white where there is none.

        `hf_maskadapter.visualization.overlay` paints them over the picture itself, with names and a legend.
        """
        colors = np.array([(255, 255, 255), *(class_color(segment.label) for segment in self)], dtype=np.uint8)
        return Image.fromarray(colors[self.segment_map()])

    def _repr_html_(self) -> str:
        """What a notebook shows: the colour map beside a table."""
        image = self.color_map()
        image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), Image.Resampling.NEAREST)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        rows = []
        for segment in self.segments[:_SHOWN_ROWS]:
            red, green, blue = class_color(segment.label)
            score = "" if segment.score is None else f"{segment.score:.2f}"
            swatch = f'<span style="color:rgb({red},{green},{blue})">&#9632;</span>'
            label = html.escape(segment.label)
            rows.append(f"<tr><td>{swatch} {label}</td><td>{score}</td><td>{segment.area}</td></tr>")
        if len(self) > _SHOWN_ROWS:
            rows.append(f"<tr><td>and {len(self) - _SHOWN_ROWS} more</td><td></td><td></td></tr>")
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
            f'<img alt="{html.escape(repr(self), quote=True)}" style="max-width:100%;border:1px solid #ccc" '
            f'src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode("ascii")}">'
            "<table><thead><tr><th>label</th><th>score</th><th>pixels</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )


__all__ = ["Segment", "Segments"]
