"""Training of the adapter in the paper's two stages: ground-truth warm-up, then mixed masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.configuration_maskadapter import AdapterImplementation
from ..model.modeling_adapter import MASK_ENCODER_STRIDE
from ..model.modeling_mask_generator import PictureMaskGenerator
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits
from .cache import FeatureCache
from .losses import (
    IGNORED_LABEL,
    MaskMatches,
    mask_classification_loss,
    mask_consistency_loss,
    match_by_assignment,
    match_by_iou,
    reduce_masks,
)
from .stage import Batch, PreparedBatch, SegmenterStage

Matcher = Literal["iou", "hungarian"]


class AdapterStage(SegmenterStage):
    """Training of the adapter and the void embedding on given masks; what stages 1 and 2 share.

    `dense_features` `(batch_size, feature_dim, height, width)` in a batch takes the place of `pixel_values`.

    Args:
        segmenter, vocabulary, seed: see [`SegmenterStage`].
        class_weight: weight of the cross-entropy.
        train_void: whether the void embedding is updated too (FC-CLIP, and any warm-up) or not (MAFT+).
        max_ground_truth_masks: so many ground-truth masks of a picture at most.
        gradient_checkpointing: trade computation for memory in the adapter's blocks.
        adapter_implementation: `"dense"` as published; `"sparse"`: the same gradients but for rounding, from the
            positions that masks reach; or `"auto"`: sparse except for few masks and weights that are sharded.

    Raises:
        ValueError: if the segmenter has no adapter.
    """

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        vocabulary: EncodedVocabulary,
        *,
        max_ground_truth_masks: int,
        class_weight: float = 2.0,
        train_void: bool = True,
        gradient_checkpointing: bool = False,
        adapter_implementation: AdapterImplementation = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(segmenter, vocabulary, train_void=train_void, seed=seed)
        self.adapter_implementation: AdapterImplementation = adapter_implementation
        self._feature_cache: FeatureCache | None = None
        if segmenter.adapter is None:
            raise ValueError("The model has no adapter to train: add one with adapter_weights.add_adapter.")
        self.adapter = segmenter.adapter.requires_grad_(True)
        self.max_ground_truth_masks = max_ground_truth_masks
        self.class_weight = class_weight
        if gradient_checkpointing:
            self.adapter.activation_checkpointing_enable({"use_reentrant": False})

    def no_weight_decay(self) -> set[str]:
        """The adapter's final norm and the void embedding; its other norms are decayed (METHOD, "Training")."""
        return {"adapter.norm.weight", "adapter.norm.bias", "void_embedding"}

    def keep_features(self, directory: str | os.PathLike[str], max_bytes: int, num_processes: int = 1) -> None:
        """Keep what the frozen parts compute on disk, and read it in later epochs; see [`FeatureCache`].

        It pays where the pictures are the same in every epoch, without random augmentation.

        Args:
            directory: folder for the files; it may be used by later runs.
            max_bytes: the size that it may reach.
            num_processes: processes that write to it.
        """
        parts = [part for part in (self.segmenter.clip, self.segmenter.mask_generator) if part is not None]
        configs = [part.config.to_json_string() for part in parts]
        facts = {"configs": configs, "outputs": self._frozen_outputs}
        self._feature_cache = FeatureCache(directory, max_bytes, parts, facts, num_processes)

    @property
    def _frozen_outputs(self) -> tuple[str, ...]:
        """What `prepare` needs of the frozen parts, by the names under which a batch may hold it."""
        return ("dense_features",)

    def _run_frozen_parts(self, pictures: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:  # noqa: ARG002 (for those who have more)
        """Some of `_frozen_outputs`, or more, of a batch's `pixel_values` and `pixel_mask`."""
        return {"dense_features": self.segmenter.clip.get_feature_maps(pictures["pixel_values"])[-1]}

    def _completed(self, batch: Batch) -> Batch:
        """The batch with everything that the frozen parts compute; what it holds already prevails."""
        lacking = [name for name in self._frozen_outputs if name not in batch]
        if not lacking:
            return batch
        if "pixel_values" not in batch:
            raise ValueError(f"The batch holds no pixel_values, so it must hold {' and '.join(lacking)}.")
        pictures = {name: batch[name] for name in ("pixel_values", "pixel_mask") if name in batch}
        if self._feature_cache is not None:
            run_all = partial(self._run_frozen_parts, wanted=self._frozen_outputs)
            return {**self._feature_cache.complete(pictures, run_all), **batch}
        return {**self._run_frozen_parts(pictures, lacking), **batch}

    def _features(self, batch: Batch) -> dict[str, Tensor]:
        dense_features = batch["dense_features"]
        return {"dense_features": dense_features, "projected_features": self.segmenter.project_features(dense_features)}

    def _ground_truth_slots(
        self, masks: Sequence[Tensor], classes: Sequence[Tensor], seeds: Sequence[int], size: tuple[int, int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Ground-truth masks at the adapter's resolution; of more than there is room for, a random choice."""
        slots, labels = [], []
        for of_picture, of_classes, seed in zip(masks, classes, seeds, strict=True):
            chosen = torch.arange(len(of_picture))
            if len(chosen) > self.max_ground_truth_masks:
                lots = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
                chosen = lots[: self.max_ground_truth_masks].sort().values
            chosen = chosen.to(of_picture.device)
            slots.append(reduce_masks(of_picture[chosen], size))
            labels.append(of_classes[chosen])
        return slots, labels

    def forward(self, inputs: Mapping[str, Any], denominators: Mapping[str, float]) -> dict[str, dict[str, Tensor]]:
        """See [`TrainingStage`]. The losses are `loss_class` and, if the inputs hold pairs, `loss_consistency`."""
        segmenter, labels = self.segmenter, inputs["labels"]
        embeddings = self.adapter(
            inputs["projected_features"],
            inputs["masks"],
            inputs["dense_features"],
            segmenter.clip.project,
            output_semantic_activation_maps=False,
            adapter_implementation=self.adapter_implementation,
            return_dict=True,
        ).mask_embeddings
        with torch.autocast(embeddings.device.type, enabled=False):  # logits of cosines × 100 need fp32
            embeddings = embeddings.float()
            scale = segmenter.clip.get_logit_scale().float()
            texts, void_embeds = segmenter.adapt_texts(
                self.vocabulary, self._void_embeds().float(), inputs["projected_features"].float()
            )
            class_logits = open_vocabulary_logits(embeddings, texts, void_embeds, scale)
            loss = mask_classification_loss(class_logits, labels, denominators["masks"])
            output = {"losses": {"loss_class": self.class_weight * loss}, "sums": {}}
            self._add_pair_losses(output["losses"], embeddings, inputs, denominators)
        valid = labels != IGNORED_LABEL
        output["sums"]["masks"] = valid.sum()
        output["sums"]["correct_masks"] = ((class_logits.argmax(dim=-1) == labels) & valid).sum()
        output["sums"]["matches"] = inputs["num_matches"]
        return output

    def _add_pair_losses(
        self,
        losses: dict[str, Tensor],
        embeddings: Tensor,
        inputs: Mapping[str, Any],
        denominators: Mapping[str, float],
    ) -> None:
        """Add the losses on pairs of masks, of which the warm-up has none."""

    def report(self, sums: Mapping[str, float]) -> dict[str, float]:
        """`masks`, and `mask_accuracy`: the fraction of them whose class has the highest logit."""
        return {"masks": sums["masks"], "mask_accuracy": sums["correct_masks"] / max(sums["masks"], 1)}


class GroundTruthWarmup(AdapterStage):
    """Stage 1 (arXiv 2412.04533, section 3.3): the adapter learns to classify ground-truth masks.

    Args:
        max_ground_truth_masks: 32 in the published recipe.
        segmenter, vocabulary, class_weight, train_void, gradient_checkpointing, adapter_implementation, seed: see
            [`AdapterStage`].
    """

    name = "warmup"

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        vocabulary: EncodedVocabulary,
        *,
        max_ground_truth_masks: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(segmenter, vocabulary, max_ground_truth_masks=max_ground_truth_masks, **kwargs)

    def prepare(self, batch: Batch) -> PreparedBatch:
        """See [`TrainingStage`]. Counts `masks`."""
        masks, classes = self._mask_labels(batch)
        inputs = self._features(self._completed(batch))
        size = _mask_size(inputs["projected_features"])
        slots, labels = self._ground_truth_slots(masks, classes, self._seeds(batch, "masks"), size)
        inputs["masks"], inputs["labels"] = _stack_slots(slots, labels)
        inputs["num_matches"] = torch.zeros((), device=inputs["masks"].device)
        return PreparedBatch(inputs, {"masks": float(sum(map(len, labels)))})


class MixedMaskTraining(AdapterStage):
    """Stage 2 (arXiv 2412.04533, section 3.3): ground-truth masks, predicted masks that match some, and consistency.

    A picture's masks are up to `max_ground_truth_masks` ground-truth masks, up to `max_matches` predictions, and the
    ground-truth masks that those match, reduced to the predictions' resolution. Cross-entropy is taken over all of
    them, the consistency loss over the pairs. The adapter sees predictions binarised at the model's `mask_threshold`.

    `masks_queries_logits` in a batch (and, for the Hungarian matcher, `class_queries_logits`) takes the place of the
    generator's output; without it, batches need `pixel_values`.

    Args:
        segmenter, vocabulary, class_weight, train_void, gradient_checkpointing, adapter_implementation, seed: see
            [`AdapterStage`].
        max_ground_truth_masks: 16 in the published recipe.
        max_matches: 8 in the published recipe.
        matcher: `"iou"`, or `"hungarian"` for the paper's ablation.
        iou_threshold: IoU that a match of the IoU matcher exceeds.
        binarize_threshold: probability at which that matcher binarises predictions; 0.4 for FC-CLIP, 0.5 for MAFT+.
        consistency_weight: weight of the consistency loss; 0 leaves it out.
        detach_target: whether the consistency loss's gradient stops at the ground-truth side (FC-CLIP) or not (MAFT+).
        count_empty_pairs: count as the published implementation does, for comparison with it: every picture has
            `max_matches` pairs, of which the absent ones are predictions with logits of zero against empty masks.

    Raises:
        ValueError: if the segmenter has no adapter or no mask generator, or the matcher is unknown or does not fit it.
    """

    name = "mixed"

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        vocabulary: EncodedVocabulary,
        *,
        max_ground_truth_masks: int = 16,
        max_matches: int = 8,
        matcher: Matcher = "iou",
        iou_threshold: float = 0.7,
        binarize_threshold: float = 0.4,
        consistency_weight: float = 5.0,
        detach_target: bool = True,
        count_empty_pairs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(segmenter, vocabulary, max_ground_truth_masks=max_ground_truth_masks, **kwargs)
        if matcher not in ("iou", "hungarian"):
            raise ValueError(f'matcher must be "iou" or "hungarian", got {matcher!r}.')
        if segmenter.mask_generator is None:
            raise ValueError(
                "Mixed-mask training needs predicted masks, but the model has no mask generator: train one first "
                "(stage generator), or start from a model that has one."
            )
        if matcher == "hungarian" and isinstance(segmenter.mask_generator, PictureMaskGenerator):
            raise ValueError(
                "The Hungarian matcher needs class logits for the vocabulary, which "
                f"{type(segmenter.mask_generator).__name__} has none of: use the IoU matcher."
            )
        self.max_matches = max_matches
        self.matcher = matcher
        self.iou_threshold = iou_threshold
        self.binarize_threshold = binarize_threshold
        self.consistency_weight = consistency_weight
        self.detach_target = detach_target
        self.count_empty_pairs = count_empty_pairs

    def prepare(self, batch: Batch) -> PreparedBatch:
        """See [`TrainingStage`]. Counts `masks` and `pairs`."""
        masks, classes = self._mask_labels(batch)
        batch = self._completed(batch)
        inputs = self._features(batch)
        size = _mask_size(inputs["projected_features"])
        masks_logits, class_logits = batch["masks_queries_logits"], batch.get("class_queries_logits")
        slots, labels = self._ground_truth_slots(masks, classes, self._seeds(batch, "masks"), size)
        pairs, num_matches = [], 0
        for index, seed in enumerate(self._seeds(batch, "match")):
            matches = self._match(
                masks_logits[index],
                class_logits[index] if class_logits is not None else None,
                masks[index],
                classes[index],
                torch.Generator().manual_seed(seed),
            )
            num_matches += len(matches.queries)
            predicted, target, pair_labels = self._pair_masks(
                matches, masks_logits[index], masks[index], classes[index]
            )
            first = len(slots[index])
            slots[index] = torch.cat([slots[index], reduce_masks(predicted, size), reduce_masks(target, size)])
            labels[index] = torch.cat([labels[index], pair_labels, pair_labels])
            pairs += [(index, first + k, first + len(predicted) + k) for k in range(len(predicted))]
        inputs["masks"], inputs["labels"] = _stack_slots(slots, labels)
        device = inputs["masks"].device
        inputs["pairs"] = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 3)
        inputs["num_matches"] = torch.tensor(float(num_matches), device=device)
        num_labeled = sum(int((of_picture != IGNORED_LABEL).sum()) for of_picture in labels)
        return PreparedBatch(inputs, {"masks": float(num_labeled), "pairs": float(len(pairs))})

    @property
    def _frozen_outputs(self) -> tuple[str, ...]:
        of_matcher = ("class_queries_logits",) if self.matcher == "hungarian" else ()
        return ("dense_features", "masks_queries_logits", *of_matcher)

    def _run_frozen_parts(self, pictures: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        feature_maps = self.segmenter.clip.get_feature_maps(pictures["pixel_values"])
        outputs = {"dense_features": feature_maps[-1]}
        if set(wanted) <= set(outputs):
            return outputs
        of_classes = (self.vocabulary, self._void_embeds().detach()) if self.matcher == "hungarian" else (None, None)
        generated = self.segmenter.generate_masks(
            feature_maps, pictures["pixel_values"], pictures.get("pixel_mask"), *of_classes
        )
        outputs["masks_queries_logits"] = generated.masks_queries_logits
        if self.matcher == "hungarian":
            outputs["class_queries_logits"] = generated.in_vocabulary_logits
        return outputs

    def keep_features(self, directory: str | os.PathLike[str], max_bytes: int, num_processes: int = 1) -> None:
        """As [`AdapterStage.keep_features`].

        Raises:
            ValueError: with the Hungarian matcher, whose class scores change with the void embedding, and with
                generators that find another number of masks in each picture.
        """
        if isinstance(self.segmenter.mask_generator, PictureMaskGenerator):
            raise ValueError(
                f"Features cannot be kept with {type(self.segmenter.mask_generator).__name__}, whose pictures have "
                "different numbers of masks. Leave feature_cache out."
            )
        if self.matcher == "hungarian":
            raise ValueError(
                "Features cannot be kept with matcher='hungarian': its class scores change while the void embedding "
                "is trained. Leave feature_cache out, or match by IoU."
            )
        super().keep_features(directory, max_bytes, num_processes)

    def _match(
        self,
        masks_logits: Tensor,
        class_logits: Tensor | None,
        masks: Tensor,
        classes: Tensor,
        generator: torch.Generator,
    ) -> MaskMatches:
        if self.matcher == "iou":
            return match_by_iou(
                masks_logits,
                masks,
                generator=generator,
                iou_threshold=self.iou_threshold,
                binarize_threshold=self.binarize_threshold,
                max_matches=self.max_matches,
            )
        if class_logits is None:
            raise ValueError("The Hungarian matcher needs class_queries_logits beside masks_queries_logits.")
        return match_by_assignment(
            masks_logits, class_logits, masks, classes, generator=generator, max_matches=self.max_matches
        )

    def _pair_masks(
        self, matches: MaskMatches, masks_logits: Tensor, masks: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted masks, the ground-truth masks that they match, and their classes."""
        logits = masks_logits[matches.queries].float()
        target = reduce_masks(masks[matches.targets], masks_logits.shape[-2:])
        labels = classes[matches.targets]
        if self.count_empty_pairs:
            absent = self.max_matches - len(labels)
            logits = torch.cat([logits, logits.new_zeros(absent, *logits.shape[1:])])
            target = torch.cat([target, target.new_zeros(absent, *target.shape[1:])])
            labels = F.pad(labels, (0, absent), value=IGNORED_LABEL)
        return logits.sigmoid() > self.segmenter.config.mask_threshold, target, labels

    def _add_pair_losses(
        self,
        losses: dict[str, Tensor],
        embeddings: Tensor,
        inputs: Mapping[str, Any],
        denominators: Mapping[str, float],
    ) -> None:
        if self.consistency_weight == 0:
            return
        picture, predicted, target = inputs["pairs"].unbind(dim=1)
        loss = mask_consistency_loss(
            embeddings[picture, predicted], embeddings[picture, target], denominators["pairs"], self.detach_target
        )
        losses["loss_consistency"] = self.consistency_weight * loss

    def report(self, sums: Mapping[str, float]) -> dict[str, float]:
        """As [`AdapterStage`], and `matches`: predictions that matched a ground-truth mask."""
        return super().report(sums) | {"matches": sums["matches"]}


def _mask_size(projected_features: Tensor) -> tuple[int, int]:
    """Height and width at which the adapter reads masks."""
    height, width = projected_features.shape[-2:]
    return MASK_ENCODER_STRIDE * height, MASK_ENCODER_STRIDE * width


def _stack_slots(masks: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad the pictures' masks with empty ones, labelled −1, to the same number, at least one."""
    num_slots = max(1, *map(len, labels)) if labels else 1
    padded_masks = [F.pad(of_picture, (0, 0, 0, 0, 0, num_slots - len(of_picture))) for of_picture in masks]
    padded_labels = [F.pad(of_picture, (0, num_slots - len(of_picture)), value=IGNORED_LABEL) for of_picture in labels]
    return torch.stack(padded_masks), torch.stack(padded_labels)


__all__ = ["AdapterStage", "GroundTruthWarmup", "MixedMaskTraining"]
