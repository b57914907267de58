"""The models that an app offers, loaded when they are asked for, and few at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..loading import MINIATURE, list_models, load_segmenter, print_to_stderr

if TYPE_CHECKING:
    from ..miniature.known_world import KnownWorld
    from ..model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline

_MOST_LOADED = 2


@dataclass(frozen=True)
class AppModel:
    """A loaded model.

    Args:
        name: what the app calls it.
        pipeline: the segmenter.
        known_world: what the embedded model knows; `None` for others.
    """

    name: str
    pipeline: ZeroShotImageSegmentationPipeline
    known_world: KnownWorld | None


class AppModels:
    """The models that an app offers. Two stay loaded at most: the one that was used longest ago makes room.

    Args:
        names: what [`hf_maskadapter.loading.find_model`] takes.
        device: where they run; by default the first accelerator there is.
    """

    def __init__(self, names: Sequence[str], device: str | None = None) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._device = device
        self._loaded: OrderedDict[str, AppModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, report: Callable[[str], None] = print_to_stderr) -> AppModel:
        """A model, loaded if need be; a released one is fetched and converted the first time.

        Args:
            name: one of `names`.
            report: takes each line about what is being done the first time.

        Raises:
            ValueError: if the app does not offer it, or it cannot segment.
            OSError: if it cannot be had.
        """
        if name not in self.names:
            raise ValueError(f"This app has no model {name!r}; it has {', '.join(self.names)}.")
        with self._lock:
            if name not in self._loaded:
                loaded = self._load(name, report)
                while len(self._loaded) >= _MOST_LOADED:
                    self._loaded.popitem(last=False)
                self._loaded[name] = loaded
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def _load(self, name: str, report: Callable[[str], None]) -> AppModel:
        from ..miniature.known_world import KnownWorld

        pipeline = load_segmenter(name, device=self._device, report=report)
        pipeline.model.text_store = None  # the app keeps nothing on disk, labels included
        if pipeline.model.mask_generator is None:
            raise ValueError(f"{name} has no mask generator; convert it again with --generator-from.")
        return AppModel(name, pipeline, KnownWorld.of_model(pipeline.model.name_or_path))

    def choices(self) -> list[tuple[str, str]]:
        """What a menu shows of each model, and its name."""
        facts = {entry.name: entry for entry in list_models()}
        choices = []
        for name in self.names:
            text = name
            if name == MINIATURE:
                text = f"{name}: drawn shapes only"
            elif name in facts and not facts[name].is_here:
                text = f"{name}: {facts[name].download_bytes / 1e9:.2f} GB to download first"
            choices.append((text, name))
        return choices


__all__ = ["AppModel", "AppModels"]
