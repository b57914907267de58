"""Segment pictures one after the other: what every source and every output have in common."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..data.options import option
from ..model.vocabulary import Vocabulary
from .errors import UserError, one_line
from .opening import load_segmenter
from .options import ModelOptions, fraction, positive

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ..miniature.known_world import KnownWorld
    from ..model.segments import Segments

Item = TypeVar("Item")
Task = Literal["semantic", "panoptic", "instance"]

_UNKNOWN_PICTURE = (
    "warning: this does not look like the drawn scenes of coloured, textured shapes that the small embedded model "
    "knows, so its labels mean nothing here. For photographs name a released model, which is fetched the first time: "
    "--model fcclip-large (maskadapter models lists all, maskadapter convert takes other checkpoints)."
)


@dataclass(kw_only=True)
class ResultOptions:
    """What kind of result, and which segments it holds."""

    task: Task | None = option("default: semantic, or the format's", None)
    threshold: float | None = option(
        "least score of panoptic and instance segments, 0 to 1", None, metavar="X", parse=fraction
    )
    overlap_threshold: float | None = option(
        "least visible share of a panoptic segment, 0 to 1", None, metavar="X", parse=fraction
    )
    batch_size: int = option(
        "pictures at a time; more than 1 are padded to a common size, which changes results slightly",
        1,
        metavar="N",
        parse=positive,
    )

    def for_task(self, default: Task) -> Task:
        """The task, `default` if none is named.

        Raises:
            UserError: if an option has no meaning for it.
        """
        task = self.task or default
        if self.threshold is not None and task == "semantic":
            raise UserError(
                "--threshold is the least score of a segment, but a semantic result gives every pixel its best label: "
                "choose --task panoptic or instance, or leave it out"
            )
        if self.overlap_threshold is not None and task != "panoptic":
            raise UserError(
                f"--overlap-threshold is for --task panoptic, not {task}: choose that task, or leave it out"
            )
        return task


class Segmenting:
    """A loaded model that segments pictures with a vocabulary.

    Args:
        command: the command's name, for what it reports.
        model: which model.
        vocabulary: the classes.
        options: which segments.
        task: what kind of result.

    Raises:
        UserError: if the model cannot be loaded, or a class's name is too long.
    """

    def __init__(
        self, command: str, model: ModelOptions, vocabulary: Vocabulary, options: ResultOptions, task: Task
    ) -> None:
        self._command = command
        self._vocabulary = vocabulary
        self._batch_size = options.batch_size
        keywords = {
            "subtask": task,
            "threshold": options.threshold,
            "overlap_mask_area_threshold": options.overlap_threshold,
            "mask_embedding": model.mask_embedding,
        }
        self._keywords = {name: value for name, value in keywords.items() if value is not None}
        self._segmenter = load_segmenter(model)
        try:
            self._segmenter.encode_vocabulary(vocabulary)
        except ValueError as error:
            raise UserError(one_line(error)) from error
        self._known_world = _known_world(self._segmenter)
        self.failed = 0
        """Pictures that could not be read."""

    def run(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Image.Image],
        *,
        total: int | None,
        done: int = 0,
        show_progress: bool = True,
    ) -> Iterator[tuple[Item, Image.Image, Segments]]:
        """Yield each item with its picture and its segments, while a bar shows the progress.

        What cannot be read is reported and counted, and the rest goes on.

        Args:
            items: what to segment, in order.
            read: reads an item's picture, as a viewer shows it; raises `UserError` if it cannot.
            total: how many there are in all, if that is known.
            done: how many of these were done before.
            show_progress: whether to show the bar where standard error is a terminal.

        Raises:
            UserError: if memory is too small.
        """
        from tqdm import tqdm

        waiting: deque[tuple[Item, Image.Image]] = deque()
        # disable=None: no bar where standard error is not a terminal.
        disable = None if show_progress else True
        with tqdm(total=total, initial=done, unit="picture", disable=disable) as progress:

            def pictures() -> Iterator[Image.Image]:
                for item in items:
                    try:
                        picture = read(item)
                    except UserError as error:
                        self.failed += 1
                        progress.update()
                        self._report(str(error))
                        continue
                    waiting.append((item, picture))
                    yield picture

            results = self._segmenter(
                pictures(),
                candidate_labels=self._vocabulary,
                batch_size=self._batch_size,
                return_segments=True,
                on_features=self._warn_of_unknown,
                **self._keywords,
            )
            try:
                for segments in results:
                    yield *waiting.popleft(), segments
                    progress.update()
            except _out_of_memory() as error:
                raise UserError(
                    "out of memory: choose a smaller --batch-size, smaller pictures or --device cpu"
                ) from error

    def _report(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"maskadapter {self._command}: {text}", file=sys.stderr)

    def _warn_of_unknown(self, dense_features: Tensor) -> None:
        """Warn once if a picture of these features is nothing that the embedded model knows."""
        if self._known_world is not None and not self._known_world.holds(dense_features[None])[0]:
            self._report(_UNKNOWN_PICTURE)
            self._known_world = None


def _out_of_memory() -> type[Exception]:
    """PyTorch's error where it is in use; exported models run without it."""
    return sys.modules["torch"].OutOfMemoryError if "torch" in sys.modules else MemoryError


def _known_world(segmenter: Any) -> KnownWorld | None:
    """What a miniature knows; None for other models, and for exported ones."""
    model = getattr(getattr(segmenter, "model", None), "name_or_path", None)
    if model is None:
        return None
    from ..miniature.known_world import KnownWorld

    return KnownWorld.of_model(model)
