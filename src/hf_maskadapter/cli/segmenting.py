"""Segment pictures one after the other: what every source and every output have in common."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..data.options import option
from ..distributed.threads import in_threads
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
Result = TypeVar("Result")
Task = Literal["semantic", "panoptic", "instance"]

_SMALL_MODEL = 50_000_000  # parameters, up to which a picture's single operations are too small for several threads
_MOST_THREADS = 8  # beyond which Python's lock is what they wait for
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
        "pictures at a time; only those of equal size go together",
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


def unit_size(batch_size: int) -> int:
    """Pictures that are looked through for batches of equal size; what was stopped does such a unit again."""
    return 1 if batch_size == 1 else 4 * batch_size


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
        self._warning = threading.Lock()
        self._computing: AbstractContextManager[Any] = nullcontext()
        self.failed = 0
        """Pictures that could not be read."""

    def run(
        self,
        units: Iterable[list[Item]],
        read: Callable[[Item], Image.Image],
        finish: Callable[[Item, Image.Image, Segments], Result],
        *,
        total: int | None,
        done: int = 0,
        bar: Any = None,
        show_progress: bool = True,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield each item with what `finish` made of its segments, in order, while a bar shows the progress.

        What cannot be read is reported and counted, and the rest goes on. Several threads read, segment and finish
        pictures at once: with a small model on the CPU one for each of PyTorch's threads, which then compute alone, so
        that no thread waits for another; else two or three, of which one at a time computes with all of PyTorch's
        threads while the others read, post-process and write.

        Args:
            units: what to segment, in order; pictures of one unit may be batched, those of several never are.
            read: reads an item's picture, as a viewer shows it; raises `UserError` if it cannot.
            finish: takes an item, its picture and its segments; what it raises ends the run.
            total: how many there are in all, if that is known.
            done: how many of these were done before.
            bar: in place of tqdm's bar: a context manager that gives what has a method `update`.
            show_progress: whether to show the bar where standard error is a terminal.

        Raises:
            UserError: if memory is too small.
        """
        from tqdm import tqdm

        def work(batch: list[Item]) -> list[tuple[Item, Result | UserError]]:
            return self._segment_and_finish(batch, read, finish)

        at_once, threads = self._threads()
        # disable=None: no bar where standard error is not a terminal.
        disable = None if show_progress else True
        try:
            bar = bar or tqdm(total=total, initial=done, unit="picture", disable=disable)
            with bar as progress, _torch_threads(threads):
                for results in in_threads(work, units, at_once, partial(_set_torch_threads, threads)):
                    for item, result in results:
                        if isinstance(result, UserError):
                            self.failed += 1
                            self._report(str(result))
                        else:
                            yield item, result
                        progress.update()
        except _out_of_memory() as error:
            raise UserError("out of memory: choose a smaller --batch-size, smaller pictures or --device cpu") from error

    def _threads(self) -> tuple[int, int | None]:
        """How many pictures are worked on at once, and PyTorch's threads for each; `None`: as they are."""
        model = getattr(self._segmenter, "model", None)
        if model is None:  # an exported one, whose engine has threads of its own
            self._computing = threading.Lock()
            return 2, None
        import torch

        usual = torch.get_num_threads()
        if model.device.type == "cpu" and sum(value.numel() for value in model.parameters()) <= _SMALL_MODEL:
            self._computing = nullcontext()
            return min(usual, _MOST_THREADS), 1
        self._computing = threading.Lock()
        return 2 if usual == 1 else 3, None

    def _segment_and_finish(
        self,
        batch: list[Item],
        read: Callable[[Item], Image.Image],
        finish: Callable[[Item, Image.Image, Segments], Result],
    ) -> list[tuple[Item, Result | UserError]]:
        results: dict[int, Result | UserError] = {}
        pictures: dict[int, Image.Image] = {}
        for place, item in enumerate(batch):
            try:
                pictures[place] = read(item)
            except UserError as error:
                results[place] = error
        if pictures:
            found = self._found(list(pictures.values()))
            for (place, picture), segments in zip(pictures.items(), found, strict=True):
                results[place] = finish(batch[place], picture, segments)
        return [(item, results[place]) for place, item in enumerate(batch)]

    def _found(self, pictures: list[Image.Image]) -> list[Segments]:
        keywords: dict[str, Any] = {**self._keywords, "batch_size": self._batch_size}
        keywords["on_features"] = self._warn_of_unknown
        if hasattr(self._segmenter, "segment_pictures"):
            return self._segmenter.segment_pictures(pictures, self._vocabulary, computing=self._computing, **keywords)
        with self._computing:
            return list(self._segmenter(pictures, candidate_labels=self._vocabulary, return_segments=True, **keywords))

    def _report(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"maskadapter {self._command}: {text}", file=sys.stderr)

    def _warn_of_unknown(self, dense_features: Tensor) -> None:
        """Warn once if a picture of these features is nothing that the embedded model knows."""
        known_world = self._known_world
        if known_world is not None and not known_world.holds(dense_features[None])[0]:
            with self._warning:
                first, self._known_world = self._known_world is not None, None
            if first:
                self._report(_UNKNOWN_PICTURE)


@contextmanager
def _torch_threads(number: int | None) -> Iterator[None]:
    """PyTorch with so many threads in this thread, and as it was afterwards."""
    if number is None:
        yield
        return
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _set_torch_threads(number: int | None) -> None:
    """In a new thread, which does not know how many the others have."""
    if number is not None:
        sys.modules["torch"].set_num_threads(number)


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
