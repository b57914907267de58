"""Masks to class scores, with an engine's graphs and NumPy: what `MaskAdapterForOpenVocabularySegmentation` does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .engines import Engine
from .manifest import Settings
from .post_processing import pooling_weights, sigmoid, softmax
from .texts import EncodedTexts

VOID_FOR_CERTAIN = 0.501
"""Probability of void above which no rounding makes a class as probable."""

MASK_EMBEDDINGS = ("adapter", "pooling", "crop")
MASK_POOLINGS = ("hard", "area", "any")

_PROBABILITY_FLOOR = 1e-8
_POSITIONS_AT_A_TIME = 2**14  # masks × cells of the feature grid, each with the adapter's channels


class PictureFeatures(NamedTuple):
    """One picture's features, each `(1, channels, height, width)`: dense ones, and what the adapter sees of them."""

    dense: np.ndarray
    projected: np.ndarray


class MaskClassifier:
    """Embeds masks and scores their classes.

    Args:
        engine: runs the graphs.
        settings: the model's.
    """

    def __init__(self, engine: Engine, settings: Settings):
        self.engine, self.settings = engine, settings

    def check(self, mask_embedding: str | None, mask_pooling: str | None) -> None:
        """Refuse ways of embedding masks that there are not, or that were not exported.

        Raises:
            ValueError: with those that there are.
        """
        method, form = mask_embedding or self.settings.mask_embedding, mask_pooling or self.settings.mask_pooling
        if method not in MASK_EMBEDDINGS:
            raise ValueError(f'mask_embedding must be "adapter", "pooling" or "crop", got {method!r}.')
        if method == "crop":
            raise ValueError('mask_embedding="crop" is not exported: use "adapter" or "pooling", or PyTorch.')
        if method not in self.engine.manifest.graphs:
            raise ValueError('This model has no adapter: use mask_embedding="pooling".')
        if form not in MASK_POOLINGS:
            raise ValueError(f'mask_pooling must be "hard", "area" or "any", got {form!r}.')

    def embed(
        self,
        features: PictureFeatures,
        masks: np.ndarray,
        are_logits: bool,
        left_out: np.ndarray | None = None,
        mask_embedding: str | None = None,
        mask_pooling: str | None = None,
    ) -> np.ndarray:
        """Embeddings of one picture's masks, not normalised, `(num_masks, embed_dim)`.

        Args:
            features: the picture's.
            masks: logits, or masks in [0, 1], `(num_masks, height, width)`, covering the padded input.
            are_logits: whether they are logits.
            left_out: masks whose embedding is of no use, `(num_masks,)` bool; the adapter takes them for empty.
            mask_embedding: instead of the settings'.
            mask_pooling: likewise.
        """
        if (mask_embedding or self.settings.mask_embedding) == "adapter":
            binary = (sigmoid(masks) if are_logits else masks) > self.settings.mask_threshold
            if left_out is not None:
                binary &= ~left_out[:, None, None]
            return self._adapted(features, binary)
        grid, form = features.dense.shape[-2:], mask_pooling or self.settings.mask_pooling
        weights = pooling_weights(masks, grid, form, 0.0 if are_logits else 0.5)
        if not len(masks):
            return np.zeros((0, self.settings.embed_dim), np.float32)
        return self.engine.run("pooling", {"dense_features": features.dense, "weights": weights})["mask_embeddings"]

    def _adapted(self, features: PictureFeatures, binary: np.ndarray) -> np.ndarray:
        """By the adapter, equal masks once, and as many at a time as memory is meant for."""
        if not len(binary):
            return np.zeros((0, self.settings.embed_dim), np.float32)
        first: dict[bytes, int] = {}
        keys = [row.tobytes() for row in np.packbits(binary.reshape(len(binary), -1), axis=1)]
        kind = [first.setdefault(key, len(first)) for key in keys]
        distinct = [keys.index(key) for key in first]
        embeddings = []
        group = max(_POSITIONS_AT_A_TIME // int(np.prod(features.dense.shape[-2:])), 1)
        for start in range(0, len(distinct), group):
            inputs = {
                "projected_features": features.projected,
                "dense_features": features.dense,
                "masks": binary[distinct[start : start + group]].astype(np.float32),
            }
            embeddings.append(self.engine.run("adapter", inputs)["mask_embeddings"])
        return np.concatenate(embeddings)[kind]

    def class_logits(
        self,
        features: PictureFeatures,
        masks: np.ndarray,
        embeddings: np.ndarray,
        texts: EncodedTexts,
        in_vocabulary_logits: np.ndarray | None,
    ) -> np.ndarray:
        """Class scores of one picture's masks from both branches, `(num_masks, num_classes + 1)`, void last.

        Args:
            features: the picture's.
            masks: as of [`MaskClassifier.embed`].
            embeddings: the masks'.
            texts: the vocabulary.
            in_vocabulary_logits: of the generator; `None` for the caller's masks.
        """
        settings, void = self.settings, np.array([self.settings.void_embedding], np.float32)
        text_embeds = texts.text_embeds
        if "text_transfer" in self.engine.manifest.graphs:
            both = np.concatenate([text_embeds, void]).astype(np.float32)
            inputs = {"text_embeds": both, "projected_features": features.projected}
            adapted = self.engine.run("text_transfer", inputs)["adapted_text_embeds"]
            text_embeds, void = adapted[:-1], adapted[-1:]
        out_logits = self.compare(embeddings, text_embeds, texts, void, settings.logit_scale)
        if in_vocabulary_logits is None:
            if settings.warmup_scoring:
                return softmax(out_logits)
            probabilities = softmax(out_logits[:, :-1])
            return _log_with_void(probabilities, np.zeros_like(probabilities[:, :1]))
        weight = np.where(texts.seen_classes, settings.ensemble_alpha, settings.ensemble_beta).astype(np.float32)
        weight = np.broadcast_to(weight, in_vocabulary_logits[:, :-1].shape)
        if settings.ensemble_on_valid_masks:
            cells = pooling_weights(masks, features.dense.shape[-2:], "hard", 0.0)
            weight = weight * cells.max(axis=(1, 2), initial=0)[:, None]
        return _ensemble(in_vocabulary_logits, out_logits, weight)

    def in_vocabulary_logits(self, class_embeddings: np.ndarray, texts: EncodedTexts) -> np.ndarray:
        """Class logits of the generator's own branch, `(num_masks, num_classes + 1)`, void last."""
        void = np.array([self.settings.void_embedding], np.float32)
        scale = self.settings.generator_logit_scale
        return self.compare(class_embeddings, texts.text_embeds, texts, void, 1.0 if scale is None else scale)

    def compare(
        self, embeddings: np.ndarray, text_embeds: np.ndarray, texts: EncodedTexts, void: np.ndarray, scale: float
    ) -> np.ndarray:
        """Scaled cosines with each class's texts, the maximum over its synonyms, void last."""
        if not len(embeddings):
            return np.zeros((0, len(texts.seen_classes) + 1), np.float32)
        inputs = {
            "embeddings": embeddings,
            "text_embeds": text_embeds.astype(np.float32),
            "class_ids": texts.class_ids,
            "seen_classes": texts.seen_classes,
            "void_embeds": void,
            "scale": np.array([scale], np.float32),
        }
        return self.engine.run("classes", inputs)["class_logits"]


def void_probability(in_vocabulary_logits: np.ndarray) -> np.ndarray:
    """Probability of void by the generator's class branch, `(num_masks,)`."""
    return softmax(in_vocabulary_logits)[:, -1]


def _ensemble(in_logits: np.ndarray, out_logits: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Both branches' class logits, combined geometrically (FC-CLIP, arXiv 2308.02487), as log-probabilities."""
    log_in, log_out = (_log_softmax(logits[:, :-1]) for logits in (in_logits, out_logits))
    probabilities = softmax((1 - weight) * log_in + weight * log_out)
    void = void_probability(in_logits)[:, None]
    return _log_with_void(probabilities * (1 - void), void)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _log_with_void(probabilities: np.ndarray, void: np.ndarray) -> np.ndarray:
    return np.log(np.concatenate([probabilities, void], axis=-1) + np.float32(_PROBABILITY_FLOOR))


__all__ = ["MaskClassifier", "PictureFeatures", "void_probability"]
