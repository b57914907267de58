"""A model as a service: pictures, masks and labels in, segments out, whatever protocol they came by."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np
from PIL import Image

from ..loading import MINIATURE
from ..miniature.known_world import FILE_NAME, KnownWorld
from ..model.image_processing_maskadapter import resized_size
from ..model.mask_classification import classify_masks
from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .admission import Admission, Place
from .batching import BatchingQueue
from .errors import RequestError
from .limits import ServiceLimits
from .metrics import Metrics
from .pictures import decode, open_within_limits, read_own_masks
from .vocabularies import Labels, VocabularyStore

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")
Task = Literal["semantic", "panoptic", "instance"]
MaskEmbedding = Literal["adapter", "pooling", "crop"]

_UNKNOWN_PICTURE = (
    "This does not look like the drawn scenes of coloured, textured shapes that the small embedded model knows, so its "
    "labels mean nothing here. For photographs serve a released model: maskadapter serve --model fcclip-large."
)


@dataclass(frozen=True)
class Settings:
    """How a picture is segmented.

    Args:
        task: what kind of result.
        threshold: least score of panoptic and instance segments, 0 to 1.
        overlap_threshold: least visible share of a panoptic segment, 0 to 1.
        mask_embedding: how masks are classified.

    Fields that are `None` are as the model says.
    """

    task: Task = "semantic"
    threshold: float | None = None
    overlap_threshold: float | None = None
    mask_embedding: MaskEmbedding | None = None


@dataclass(eq=False)
class Answer:
    """What was found in a picture.

    Args:
        picture: as a viewer shows it.
        segments: of it; of own masks one for each, in their order.
        warnings: sentences for whoever asked.
    """

    picture: Image.Image
    segments: Segments
    warnings: tuple[str, ...] = ()


@dataclass(eq=False)
class _Work:
    picture: Image.Image
    vocabulary: Vocabulary
    settings: Settings
    masks: np.ndarray | None

    def key(self, model_size: tuple[int, int]) -> Any:
        """Equal for works that the model can take at once with the same results as one by one."""
        return id(self) if self.masks is not None else (self.settings, model_size, self.vocabulary)


class Service:
    """A segmenter behind a queue.

    Args:
        segmenter: the pipeline; from now on it belongs to the service's one thread.
        name: what answers call the model.
        limits: of requests and queue.
        mask_embedding: how masks are classified unless a request says; by default as the model's configuration says.
        api_key: what clients must send; `None` if all may ask.
    """

    def __init__(
        self,
        segmenter: ZeroShotImageSegmentationPipeline,
        name: str = MINIATURE,
        limits: ServiceLimits | None = None,
        *,
        mask_embedding: MaskEmbedding | None = None,
        api_key: str | None = None,
    ):
        self.segmenter, self.name, self.api_key = segmenter, name, api_key
        self.limits = ServiceLimits() if limits is None else limits
        segmenter.max_cached_vocabularies = self.limits.queue.vocabularies
        self.metrics = Metrics()
        self.vocabularies = VocabularyStore(self.limits.queue.vocabularies, self.limits.request.max_labels)
        self.admission = Admission(
            self.limits.queue.queue, self.limits.queue.queue_bytes, lambda: self.metrics.seconds_each
        )
        self._mask_embedding = mask_embedding
        folder = Path(segmenter.model.name_or_path)
        self._known_world = KnownWorld.load(folder) if (folder / FILE_NAME).is_file() else None
        self._queue: BatchingQueue[_Work, tuple[Segments, tuple[str, ...]]] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._watch()

    def _watch(self) -> None:
        self.metrics.watch("maskadapter_requests_in_progress", "Accepted requests", lambda: self.admission.in_use)
        self.metrics.watch(
            "maskadapter_queue_pictures", "Pictures that wait", lambda: 0 if self._queue is None else len(self._queue)
        )
        self.metrics.watch("maskadapter_queue_bytes", "Memory that they take", lambda: self.admission.reserved)
        self.metrics.watch("maskadapter_vocabularies", "Vocabularies that are kept", lambda: len(self.vocabularies))

    async def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="pictures")
        self._queue = BatchingQueue(self._compute, self.limits.queue.batch_size, self.metrics.computed)
        await self._queue.start()

    async def stop(self) -> None:
        """End after what is being computed."""
        if self._queue is not None:
            await self._queue.stop()
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)

    async def run(
        self, function: Callable[Parameters, Value], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Value:
        """Call a function that takes its time, beside the event loop and the model."""
        assert self._threads is not None, "the service is not started"
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*arguments, **named))

    async def segment(
        self,
        content: bytes,
        labels: Labels,
        place: Place,
        *,
        things: Sequence[str] | None = None,
        settings: Settings | None = None,
        masks: Sequence[Any] | None = None,
    ) -> Answer:
        """Segment one picture, together with others that wait.

        Args:
            content: the encoded picture.
            labels: what to look for, see [`VocabularyStore.get`].
            place: of the request, from `service.admission.place()`.
            things: the countable classes.
            settings: how.
            masks: own masks to classify in place of generated ones, see [`read_own_masks`].

        Raises:
            RequestError: if picture, labels, masks or settings cannot be used, or there is no memory left.
        """
        settings = self._checked(settings or Settings())
        work = await self.run(self._prepare, content, labels, things, settings, masks, place)
        assert self._queue is not None
        segments, warnings = await self._queue.put(work, work.key(self._model_size(work.picture)))
        return Answer(work.picture, segments, warnings)

    def _model_size(self, picture: Image.Image) -> tuple[int, int]:
        """Height and width at which the model sees a picture."""
        processor = self.segmenter.processor.image_processor
        size = dict(processor.size)
        shortest, longest = size.get("shortest_edge"), size.get("longest_edge")
        if not processor.do_resize:
            return picture.height, picture.width
        if (edge := shortest or longest) is not None:
            return resized_size(picture.height, picture.width, edge, longest)
        return size["height"], size["width"]

    def _checked(self, settings: Settings) -> Settings:
        """The settings with the service's own in place of what is not given."""
        if settings.threshold is not None and settings.task == "semantic":
            raise RequestError(
                422,
                "threshold is the least score of a segment, but a semantic result gives every pixel its best label: "
                "choose task panoptic or instance, or leave it out.",
            )
        if settings.overlap_threshold is not None and settings.task != "panoptic":
            raise RequestError(
                422, f"overlap_threshold is for task panoptic, not {settings.task}: choose that task, or leave it out."
            )
        if settings.mask_embedding is None and self._mask_embedding is not None:
            return Settings(settings.task, settings.threshold, settings.overlap_threshold, self._mask_embedding)
        if settings.mask_embedding == "adapter" and self.segmenter.model.adapter is None:
            raise RequestError(422, f"mask_embedding: {self.name} has no adapter; choose pooling or crop.")
        return settings

    def _prepare(
        self,
        content: bytes,
        labels: Labels,
        things: Sequence[str] | None,
        settings: Settings,
        masks: Sequence[Any] | None,
        place: Place,
    ) -> _Work:
        vocabulary = self.vocabularies.get(labels, things)
        image = open_within_limits(content, self.limits.request)
        if masks is not None and len(masks) > self.limits.request.max_masks:
            raise RequestError(
                422, f"masks: more than {self.limits.request.max_masks}; ask for fewer of them at a time."
            )
        place.reserve(image.width * image.height * (3 + len(masks or ())))
        picture = decode(image)
        own = None
        if masks is not None:
            own = read_own_masks(masks, (picture.height, picture.width), self.limits.request)
        return _Work(picture, vocabulary, settings, own)

    def _compute(self, works: Sequence[_Work]) -> list[tuple[Segments, tuple[str, ...]] | Exception]:
        """Results of works of one key, in the model's thread."""
        first = works[0]
        try:
            self.segmenter.encode_vocabulary(first.vocabulary)
        except ValueError as error:  # a name is too long for the text tower
            return [RequestError(422, f"labels: {error}") for _ in works]
        if first.masks is not None:
            return [(self._classified(first), ())]
        warnings: list[tuple[str, ...]] = []
        options = {
            "threshold": first.settings.threshold,
            "overlap_mask_area_threshold": first.settings.overlap_threshold,
            "mask_embedding": first.settings.mask_embedding,
            "on_features": None if self._known_world is None else lambda maps: warnings.append(self._warnings(maps)),
        }
        results = self.segmenter(
            [work.picture for work in works],
            candidate_labels=first.vocabulary,
            subtask=first.settings.task,
            batch_size=len(works),
            return_segments=True,
            **{name: value for name, value in options.items() if value is not None},
        )
        return list(zip(results, warnings or [()] * len(works), strict=True))

    def _warnings(self, dense_features: Tensor) -> tuple[str, ...]:
        assert self._known_world is not None
        return () if self._known_world.holds(dense_features[None])[0] else (_UNKNOWN_PICTURE,)

    def _classified(self, work: _Work) -> Segments:
        classified = classify_masks(
            self.segmenter.model,
            work.picture,
            work.masks,
            self.segmenter.encode_vocabulary(work.vocabulary),
            self.segmenter.processor,
            mask_embedding=work.settings.mask_embedding,
        )
        return Segments.from_classified_masks(classified, work.vocabulary)


__all__ = ["Answer", "MaskEmbedding", "Service", "Settings", "Task"]
