"""Segment pictures one after the other: what every source and every output have in common."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..model.vocabulary import Vocabulary
from .errors import UserError, one_line
from .models import load_segmenter

if TYPE_CHECKING:
    from PIL import Image

    from ..miniature.known_world import KnownWorld

Item = TypeVar("Item")

_UNKNOWN_PICTURE = (
    "maskadapter segment: warning: this does not look like the drawn scenes of coloured, textured shapes that the "
    "small embedded model knows, so its labels mean nothing here. For photographs convert released weights "
    "(maskadapter convert --help) and name them with --model."
)


class Segmenting:
    """A loaded model that segments pictures with a vocabulary, as the options of `maskadapter segment` say.

    Args:
        args: the options.
        vocabulary: the classes.

    Raises:
        UserError: if the model cannot be loaded, or a class's name is too long.
    """

    def __init__(self, args: argparse.Namespace, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._batch_size = args.batch_size
        options = {
            "subtask": args.task,
            "threshold": args.threshold,
            "overlap_mask_area_threshold": args.overlap_threshold,
            "mask_embedding": args.mask_embedding,
        }
        self._options = {name: value for name, value in options.items() if value is not None}
        self._segmenter = load_segmenter(args)
        try:
            self._segmenter.encode_vocabulary(vocabulary)
        except ValueError as error:
            raise UserError(one_line(error)) from error
        self._known_world = _known_world(self._segmenter.model.name_or_path)
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
    ) -> Iterator[tuple[Item, Image.Image, list[dict[str, Any]]]]:
        """Yield each item with its picture and the pipeline's segments, while a bar shows the progress.

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
        import torch
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
                        tqdm.write(f"maskadapter segment: {error}", file=sys.stderr)
                        continue
                    if self._known_world is not None and not self._is_known(picture):
                        tqdm.write(_UNKNOWN_PICTURE, file=sys.stderr)
                        self._known_world = None
                    waiting.append((item, picture))
                    yield picture

            results = self._segmenter(
                pictures(), candidate_labels=self._vocabulary, batch_size=self._batch_size, **self._options
            )
            try:
                for segments in results:
                    yield *waiting.popleft(), segments
                    progress.update()
            except torch.OutOfMemoryError as error:
                raise UserError(
                    "out of memory: choose a smaller --batch-size, smaller pictures or --device cpu"
                ) from error

    def _is_known(self, picture: Image.Image) -> bool:
        assert self._known_world is not None
        model = self._segmenter.model
        inputs = self._segmenter.image_processor(images=[picture.convert("RGB")], return_tensors="pt")
        features = model.clip.get_feature_maps(inputs["pixel_values"].to(model.device, model.dtype))
        return self._known_world.holds(features[-1])[0]


def _known_world(model: str) -> KnownWorld | None:
    """What a miniature knows; None for other models."""
    from ..miniature.known_world import FILE_NAME, KnownWorld

    return KnownWorld.load(model) if (Path(model) / FILE_NAME).is_file() else None
