"""Training of the mask generator by Mask2Former's losses, on the features of a frozen CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..model.modeling_mask_generator import PictureMaskGenerator
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary
from .losses import mask_generator_losses, query_weight_sum
from .options import MaskLossOptions
from .stage import Batch, PreparedBatch, SegmenterStage


class MaskGeneratorTraining(SegmenterStage):
    """Training of the mask generator by Mask2Former's losses (arXiv 2112.01527), on frozen CLIP features.

    All predictions of the decoder are supervised. The class branch is trained against the texts of `vocabulary`: give
    the base classes only, so that novel names do not become permanent negatives.

    `feature_maps` (a tuple) in a batch takes the place of `pixel_values`.

    Args:
        segmenter: the model, see [`SegmenterStage`].
        vocabulary: the training classes, see [`SegmenterStage`].
        losses: weights of the losses on masks, and the points at which masks are compared.
        class_weight: weight of the class loss and of the classes in matching.
        train_void: whether the void embedding is updated too.
        seed: the run's seed.

    Raises:
        ValueError: if the segmenter has no mask generator that can be trained.
    """

    name = "generator"

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        vocabulary: EncodedVocabulary,
        losses: MaskLossOptions | None = None,
        *,
        class_weight: float = 2.0,
        train_void: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(segmenter, vocabulary, train_void=train_void, seed=seed)
        if segmenter.mask_generator is None:
            raise ValueError("The model has no mask generator to train: give it a mask_generator_config.")
        if isinstance(segmenter.mask_generator, PictureMaskGenerator):
            raise ValueError(
                f"{type(segmenter.mask_generator).__name__} wraps a model of Transformers, which is not trained here: "
                "train that model by itself before it is wrapped."
            )
        self.mask_generator = segmenter.mask_generator.requires_grad_(True)
        self.losses = losses or MaskLossOptions()
        self.class_weight = class_weight

    def no_weight_decay(self) -> set[str]:
        """Norms, embeddings (among them the queries) and the void embedding, as in Mask2Former."""
        return super().no_weight_decay() | {"void_embedding"}

    def prepare(self, batch: Batch) -> PreparedBatch:
        """See [`TrainingStage`]. Counts `masks` and `query_weights`."""
        masks, classes = self._mask_labels(batch)
        feature_maps = batch.get("feature_maps") or self.segmenter.clip.get_feature_maps(batch["pixel_values"])
        num_masks = [len(labels) for labels in classes]
        num_queries = self.segmenter.config.mask_generator_config.num_queries
        counts = {
            "masks": float(sum(num_masks)),
            "query_weights": query_weight_sum(num_queries, num_masks, self.losses.no_object_weight),
        }
        seeds = self._seeds(batch, "points")
        inputs = {"feature_maps": feature_maps, "mask_labels": masks, "class_labels": classes, "seeds": seeds}
        return PreparedBatch(inputs, counts)

    def forward(self, inputs: Mapping[str, Any], denominators: Mapping[str, float]) -> dict[str, dict[str, Tensor]]:
        """See [`TrainingStage`]. `loss_class`, `loss_mask`, `loss_dice`: each summed over the decoder's predictions."""
        output = self.mask_generator(
            inputs["feature_maps"], self.vocabulary, self._void_embeds(), output_auxiliary=True, return_dict=True
        )
        device = output.masks_queries_logits.device
        generators = [torch.Generator(device).manual_seed(seed) for seed in inputs["seeds"]]
        losses: dict[str, Tensor] = {}
        with torch.autocast(device.type, enabled=False):
            for prediction in (*output.auxiliary_outputs, output):
                of_prediction = mask_generator_losses(
                    prediction.masks_queries_logits,
                    prediction.in_vocabulary_logits,
                    inputs["mask_labels"],
                    inputs["class_labels"],
                    generators=generators,
                    mask_denominator=denominators["masks"],
                    class_denominator=denominators["query_weights"],
                    class_weight=self.class_weight,
                    options=self.losses,
                )
                losses = {name: losses.get(name, 0) + loss for name, loss in of_prediction.items()}
        num_masks = torch.tensor(float(sum(map(len, inputs["class_labels"]))), device=device)
        return {"losses": losses, "sums": {"masks": num_masks}}


__all__ = ["MaskGeneratorTraining"]
