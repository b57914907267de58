"""The zero-shot segmentation pipeline on exported graphs: pictures and any labels in, named masks out, no PyTorch."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from ..model.picture_preparation import Preparation, read_mask_array
from ..model.pipeline_inputs import (
    Request,
    parse_candidate_labels,
    read_request,
    refuse_idle_thresholds,
    require_subtask,
)
from ..model.segments import Segment, Segments, Task
from ..model.vocabulary import Vocabulary
from .classification import VOID_FOR_CERTAIN, MaskClassifier, PictureFeatures, void_probability
from .engines import PROPOSALS, Engine, open_engine
from .manifest import Manifest, read_manifest
from .post_processing import PictureMasks, Thresholds, find_segments, softmax
from .texts import EncodedTexts, TextEncoder, normalize

_MAX_CACHED_VOCABULARIES = 16
_NO_PROPOSALS = 'This model has no mask generator: give masks, {"image": picture, "masks": masks}.'


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What one call asks for."""

    subtask: Task
    thresholds: Thresholds
    mask_embedding: str | None
    mask_pooling: str | None
    return_segments: bool
    on_features: Callable[[np.ndarray], None] | None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A picture as the model sees it: its request, `(3, height, width)` pixels, and its own masks, unpadded."""

    request: Request
    pixels: np.ndarray
    own_masks: np.ndarray | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in the model's input."""
        height, width = self.pixels.shape[1:]
        return height, width


class ExportedSegmenter:
    """Open-vocabulary segmentation by an exported model, on ONNX Runtime or OpenVINO.

    It is called as [`ZeroShotImageSegmentationPipeline`] is, and gives the same results, with NumPy, Pillow and
    tokenizers alone.

    Example:
    ```python
    segmenter = ExportedSegmenter.from_pretrained("exported")
    for segment in segmenter("street.jpg", candidate_labels=["car", "road", "sky"]):
        print(segment["label"], segment["mask"].size)
    ```

    Args:
        folder: the exported model's.
        manifest: its manifest.
        engine: runs its graphs.
    """

    def __init__(self, folder: Path, manifest: Manifest, engine: Engine):
        self.folder, self.manifest, self.engine = folder, manifest, engine
        settings = manifest.settings
        self._preparation = Preparation(**settings.image_processor)
        self._texts = TextEncoder(
            folder, settings, lambda input_ids: engine.run("texts", {"input_ids": input_ids})["text_embeds"]
        )
        self._classifier = MaskClassifier(engine, settings)
        self._encoded: OrderedDict[Vocabulary, EncodedTexts] = OrderedDict()

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, threads: int | None = None, verify: bool = False
    ) -> Self:
        """Open an exported model.

        Args:
            folder: that `export_model` or `maskadapter export` wrote.
            threads: processor threads to use; by default as many as the engine chooses.
            verify: whether to compare the hash of every file with the manifest's, which reads them all.

        Raises:
            FileNotFoundError: if there is no such folder.
            ExportedModelError: if it holds no exported model, or a damaged one.
            ImportError: if the engine that it is made for is not installed.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads is a number of processor threads, at least 1, got {threads}.")
        path = Path(folder)
        manifest = read_manifest(path, verify=verify)
        return cls(path, manifest, open_engine(path, manifest, threads))

    def check(self, mask_embedding: str | None = None, mask_pooling: str | None = None) -> None:
        """Refuse what a call with these arguments would refuse, and a model that proposes no masks.

        Raises:
            ValueError: saying what there is instead.
        """
        self._classifier.check(mask_embedding, mask_pooling)
        if PROPOSALS not in self.manifest.graphs:
            raise ValueError(_NO_PROPOSALS)

    @property
    def precision(self) -> str:
        """What the graphs that ran so far compute in, as the engine itself tells."""
        return self.engine.precision

    def __repr__(self) -> str:
        return f"ExportedSegmenter({str(self.folder)!r}, {self.manifest.dtype}, {self.engine.name})"

    def __call__(
        self,
        images: Any,
        candidate_labels: Any = None,
        *,
        subtask: Task | None = None,
        threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        mask_embedding: str | None = None,
        mask_pooling: str | None = None,
        batch_size: int = 1,
        return_segments: bool = False,
        on_features: Callable[[np.ndarray], None] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Segment one picture or many; arguments and results are those of [`ZeroShotImageSegmentationPipeline`].

        Args:
            images: a picture in any form; a dict of it as `image` with `candidate_labels` or `masks` of its own; or a
                list, generator or data set of these, of which the latter two give results one by one.
            candidate_labels: what to look for, in any form that the pipeline takes.
            subtask: `"semantic"` (default), `"panoptic"` or `"instance"`.
            threshold: score that a panoptic or instance segment must exceed.
            overlap_mask_area_threshold: least visible share of a panoptic segment.
            mask_embedding: `"adapter"` or `"pooling"` instead of the model's.
            mask_pooling: `"hard"`, `"area"` or `"any"` instead of the model's.
            batch_size: pictures at a time; those of different sizes are padded to a common one.
            return_segments: whether to return [`Segments`] instead of lists of dicts.
            on_features: is called with CLIP's dense features of each picture, `(feature_dim, height, width)`.
            timeout: seconds to wait for a picture from the web.

        Returns:
            For each picture a list of dicts with `label`, `score` and `mask`, or [`Segments`].

        Raises:
            ValueError: if there are no labels, or an argument is wrong or has no effect.
        """
        require_subtask(subtask)
        given = {"threshold": threshold, "overlap_mask_area_threshold": overlap_mask_area_threshold}
        refuse_idle_thresholds(subtask, given)
        self._classifier.check(mask_embedding, mask_pooling)
        if batch_size < 1:
            raise ValueError(f"batch_size is a number of pictures, at least 1, got {batch_size}.")
        vocabulary = None if candidate_labels is None else parse_candidate_labels(candidate_labels)
        call = _Call(
            subtask=subtask or "semantic",
            thresholds=self._thresholds(subtask, threshold, overlap_mask_area_threshold),
            mask_embedding=mask_embedding,
            mask_pooling=mask_pooling,
            return_segments=return_segments,
            on_features=on_features,
        )
        if _is_one_picture(images):
            return next(self._results([images], vocabulary, timeout, 1, call))
        results = self._results(images, vocabulary, timeout, batch_size, call)
        return list(results) if isinstance(images, (list, tuple)) else results

    def encode_vocabulary(self, vocabulary: Vocabulary) -> EncodedTexts:
        """Encode a vocabulary, or look it up if it was encoded lately. A call does it by itself.

        Raises:
            ValueError: if a name is longer than the text tower reads.
        """
        if vocabulary not in self._encoded:
            while len(self._encoded) >= _MAX_CACHED_VOCABULARIES:
                self._encoded.popitem(last=False)
            self._encoded[vocabulary] = self._texts.encode(vocabulary)
        self._encoded.move_to_end(vocabulary)
        return self._encoded[vocabulary]

    def _thresholds(self, subtask: str | None, threshold: float | None, overlap: float | None) -> Thresholds:
        settings = self.manifest.settings
        default = settings.instance_threshold if subtask == "instance" else settings.object_threshold
        return Thresholds(
            default if threshold is None else threshold,
            settings.overlap_threshold if overlap is None else overlap,
            settings.instance_top_k,
        )

    def _results(
        self, images: Iterable[Any], vocabulary: Vocabulary | None, timeout: float | None, batch_size: int, call: _Call
    ) -> Iterator[Any]:
        batch: list[_Prepared] = []
        for image in images:
            batch.append(self._prepare(read_request(image, vocabulary, timeout)))
            if len(batch) == batch_size:
                yield from self._segment(batch, call)
                batch = []
        if batch:
            yield from self._segment(batch, call)

    def _prepare(self, request: Request) -> _Prepared:
        original = (request.picture.height, request.picture.width)
        size = self._preparation.new_size(original)
        own = None if request.masks is None else read_mask_array(request.masks, original, 0)
        masks = None if own is None else self._preparation.masks(own, size, size)
        return _Prepared(request, self._preparation.pixels(request.picture, size), masks)

    def _segment(self, batch: list[_Prepared], call: _Call) -> Iterator[Any]:
        padded = self._preparation.padded_size([picture.size for picture in batch])
        pixel_values = np.zeros((len(batch), 3, *padded), np.float32)
        for values, picture in zip(pixel_values, batch, strict=True):
            values[:, : picture.size[0], : picture.size[1]] = picture.pixels
        features = self.engine.run("picture", {"pixel_values": pixel_values})
        last = f"feature_map_{self.manifest.settings.num_feature_maps - 1}"
        proposals: Mapping[str, np.ndarray] = {}
        if any(picture.own_masks is None for picture in batch):
            if PROPOSALS not in self.manifest.graphs:
                raise ValueError(_NO_PROPOSALS)
            proposals = self.engine.run(PROPOSALS, features)
        for number, picture in enumerate(batch):
            own = slice(number, number + 1)
            of_picture = PictureFeatures(features[last][own], features["projected_features"][own])
            if call.on_features is not None:
                call.on_features(_without_padding(of_picture.dense[0], picture.size, padded))
            if picture.own_masks is not None:
                segments = self._classified(picture, of_picture, padded, call)
                yield segments if call.return_segments else segments.to_pipeline()
                continue
            of_proposals = {name: values[number] for name, values in proposals.items()}
            segments = self._found(picture, of_picture, of_proposals, padded, call)
            if call.return_segments:
                yield segments
            elif call.subtask == "instance":
                yield replace(segments, segments=segments.best_first()).to_pipeline()
            else:
                yield segments.to_pipeline()

    def _classified(
        self, picture: _Prepared, features: PictureFeatures, padded: tuple[int, int], call: _Call
    ) -> Segments:
        """The caller's own masks with their classes."""
        vocabulary, own = picture.request.vocabulary, picture.own_masks
        texts = self.encode_vocabulary(vocabulary)
        assert own is not None
        assert picture.request.masks is not None
        masks = np.zeros((len(own), *padded), np.float32)
        masks[:, : picture.size[0], : picture.size[1]] = own
        embeddings = self._classifier.embed(
            features, masks, False, mask_embedding=call.mask_embedding, mask_pooling=call.mask_pooling
        )
        class_logits = self._classifier.class_logits(features, masks, embeddings, texts, None)
        probabilities = softmax(class_logits[:, :-1])
        of_masks = zip(picture.request.masks, probabilities, normalize(embeddings), strict=True)
        found = [
            Segment.of_class(vocabulary, int(row.argmax()), mask, score=float(row.max()), embedding=embedding)
            for mask, row, embedding in of_masks
        ]
        return Segments(found, _size_of(picture.request.picture), vocabulary)

    def _found(
        self,
        picture: _Prepared,
        features: PictureFeatures,
        proposals: Mapping[str, np.ndarray],
        padded: tuple[int, int],
        call: _Call,
    ) -> Segments:
        """The segments of proposed masks."""
        vocabulary, masks = picture.request.vocabulary, proposals["masks"]
        texts = self.encode_vocabulary(vocabulary)
        in_logits = self._classifier.in_vocabulary_logits(proposals["class_embeddings"], texts)
        left_out = void_probability(in_logits) > VOID_FOR_CERTAIN if call.subtask == "panoptic" else None
        embeddings = self._classifier.embed(features, masks, True, left_out, call.mask_embedding, call.mask_pooling)
        class_logits = self._classifier.class_logits(features, masks, embeddings, texts, in_logits)
        picture_masks = PictureMasks(
            masks, padded, picture.size, _size_of(picture.request.picture), np.arange(len(masks))
        )
        return find_segments(
            class_logits, picture_masks, normalize(embeddings), call.subtask, vocabulary, call.thresholds
        )


def _size_of(picture: Image.Image) -> tuple[int, int]:
    return picture.height, picture.width


def _is_one_picture(images: Any) -> bool:
    return isinstance(images, (str, os.PathLike, bytes, bytearray, Mapping, Image.Image, np.ndarray)) or hasattr(
        images, "detach"
    )


def _without_padding(features: np.ndarray, size: tuple[int, int], padded: tuple[int, int]) -> np.ndarray:
    """The cells of a picture's features `(feature_dim, height, width)` that hold pixels of it."""
    height, width = (
        -(-inside * side // whole) for inside, whole, side in zip(size, padded, features.shape[1:], strict=True)
    )
    return features[:, :height, :width]


__all__ = ["ExportedSegmenter"]
