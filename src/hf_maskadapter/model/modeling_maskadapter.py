"""The complete open-vocabulary segmenter around the Mask-Adapter (CVPR 2025, arXiv 2412.04533).

picture → CLIP (frozen) → mask generator (frozen), or masks from the caller
→ Mask-Adapter: semantic activation maps for each mask → mask embeddings
→ cosines with text embeddings → geometric ensemble with the generator's own class logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForUniversalSegmentation, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_clips import DenseClipConfig
from .configuration_maskadapter import MaskAdapterConfig, MaskEmbedding, MaskPooling
from .mask_classification import ClassifiedMask, classify_masks, score_texts
from .mask_embedding import (
    embed_crops,
    geometric_ensemble,
    log_with_void,
    pool_inside_masks,
    pooling_weights,
    void_probability,
)
from .modeling_adapter import MaskAdapterModel, MaskAdapterOutput, MaskAdapterPreTrainedModel
from .modeling_clip import DenseClipModel
from .modeling_clip_convnext import ConvNextClipModel
from .modeling_clip_resnet import ResNetClipModel
from .modeling_clip_vit import SiglipClipModel, VitClipModel, as_dense_clip
from .modeling_mask_generator import MaskGeneratorOutput, PictureMaskGenerator, restore_pictures
from .modeling_mask_generator_fcclip import FcClipMaskGenerator
from .modeling_mask_generator_sam import SamMaskGenerator
from .modeling_mask_generator_universal import UniversalMaskGenerator
from .modeling_text_classifier import (
    EncodedVocabulary,
    TextStore,
    classify_names,
    distinct_names,
    embed_names,
    open_vocabulary_logits,
)
from .modeling_text_transfer import TextTransfer
from .segments import Segment
from .vocabulary import PROMPT_TEMPLATES, Vocabulary

VOID_FOR_CERTAIN = 0.501  # so far above one half that no rounding makes a class as probable
#: Fields of a configuration that say nothing about the adapter, and nothing that it was trained for.
_FIELDS_OF_OTHER_PARTS = {
    "clip_config",
    "mask_generator_config",
    "use_adapter",
    "text_transfer",
    "text_transfer_heads",
    "text_transfer_panoptic",
    "warmup_scoring",
}

# By name and not by class: in remote code, configuration and model may be of two copies of the same file.
_CLIPS: dict[str, type[DenseClipModel]] = {
    clip.config_class.model_type: clip for clip in (ConvNextClipModel, ResNetClipModel, VitClipModel, SiglipClipModel)
}

_MASK_GENERATORS: dict[str, type[PreTrainedModel]] = {
    generator.config_class.model_type: generator
    for generator in (FcClipMaskGenerator, UniversalMaskGenerator, SamMaskGenerator)
}


@dataclass
class MaskAdapterSegmentationOutput(ModelOutput):
    """Output of [`MaskAdapterForOpenVocabularySegmentation`].

    Args:
        loss (`torch.FloatTensor`, *optional*), loss_dict (`dict[str, torch.FloatTensor]`, *optional*):
            Filled by training code.
        class_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_masks, num_classes + 1)`):
            Log-probabilities of the classes for each mask, void last.
        masks_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_masks, height, width)`, *optional*):
            The generator's mask logits, covering the padded picture. `None` if the caller gave masks.
        mask_probabilities (`torch.FloatTensor` of shape `(batch_size, num_masks, height, width)`, *optional*):
            The caller's masks, in [0, 1].
        valid_masks (`torch.BoolTensor` of shape `(batch_size, num_masks)`, *optional*):
            Which of the generator's masks there are, if their number varies; the others fill up the batch.
        mask_embeddings (`torch.FloatTensor` of shape `(batch_size, num_masks, projection_dim)`):
            Mask embeddings in CLIP's space, not normalised.
        semantic_activation_maps (`torch.FloatTensor`, *optional*):
            See [`MaskAdapterOutput`]; on request.
        in_vocabulary_logits (`torch.FloatTensor` of shape `(batch_size, num_masks, num_classes + 1)`, *optional*):
            Class logits of the generator's own branch, void last.
        out_vocabulary_logits (`torch.FloatTensor` of shape `(batch_size, num_masks, num_classes + 1)`):
            Class logits of the mask embeddings, void last.
        image_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
            Height and width in pixels of each picture inside the padded input.
        padded_size (`torch.LongTensor` of shape `(2,)`):
            Height and width in pixels of the padded input.
        generator_output (`MaskGeneratorOutput`, *optional*):
            What the mask generator returned.
    """

    loss: torch.FloatTensor | None = None
    loss_dict: dict[str, torch.FloatTensor] | None = None
    class_queries_logits: torch.FloatTensor | None = None
    masks_queries_logits: torch.FloatTensor | None = None
    mask_probabilities: torch.FloatTensor | None = None
    valid_masks: torch.BoolTensor | None = None
    mask_embeddings: torch.FloatTensor | None = None
    semantic_activation_maps: torch.FloatTensor | None = None
    in_vocabulary_logits: torch.FloatTensor | None = None
    out_vocabulary_logits: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    padded_size: torch.LongTensor | None = None
    generator_output: MaskGeneratorOutput | None = None


def build_clip(config: DenseClipConfig) -> DenseClipModel:
    """A CLIP with random weights, of the class that its configuration's `model_type` says: ours, or one registered."""
    if config.model_type in _CLIPS:
        return _CLIPS[config.model_type]._from_config(config)
    return AutoModel.from_config(config)


def build_mask_generator(config: PreTrainedConfig) -> PreTrainedModel:
    """A mask generator with random weights, of the class that its configuration's `model_type` says.

    Raises:
        ValueError: if there is no such mask generator.
    """
    if config.model_type not in _MASK_GENERATORS:
        raise ValueError(
            f"mask_generator_config is of type {config.model_type!r}; there are {', '.join(_MASK_GENERATORS)}, which "
            "wrap other models, see from_parts."
        )
    return _MASK_GENERATORS[config.model_type]._from_config(config)


def _image_sizes(pixel_values: Tensor, pixel_mask: Tensor | None) -> Tensor:
    """Height and width of each picture inside the padded input, `(batch_size, 2)`."""
    if pixel_mask is None:
        size = torch.tensor(pixel_values.shape[-2:], device=pixel_values.device)
        return size.expand(pixel_values.shape[0], 2)
    return torch.stack([pixel_mask.any(dim=axis).sum(dim=-1) for axis in (2, 1)], dim=-1)


class MaskAdapterForOpenVocabularySegmentation(MaskAdapterPreTrainedModel):
    """CLIP, mask generator and Mask-Adapter together: named masks for any vocabulary.

    A vocabulary is encoded once by [`~MaskAdapterForOpenVocabularySegmentation.encode_vocabulary`] and reused.

    Example:
    ```python
    processor = AutoProcessor.from_pretrained(name)
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(name).eval()
    vocabulary = model.encode_vocabulary(["cat, kitten", "sofa", "wall"], processor)
    inputs = processor(images=image, return_tensors="pt")
    outputs = model(**inputs, vocabulary=vocabulary)
    label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
    ```
    """

    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    _keep_in_fp32_modules_strict = {"mask_generator"}  # noqa: RUF012
    text_store: TextStore | None = None
    """Where the embeddings of names are kept beyond this model's life, if anywhere."""

    def __init__(self, config: MaskAdapterConfig):
        if config.clip_config is None:
            raise ValueError(
                "MaskAdapterForOpenVocabularySegmentation needs clip_config; the adapter alone is MaskAdapterModel."
            )
        super().__init__(config)
        self.clip = build_clip(config.clip_config)  # type: ignore[arg-type]
        self.mask_generator = (
            build_mask_generator(config.mask_generator_config) if config.mask_generator_config is not None else None
        )
        self.adapter = MaskAdapterModel._from_config(config) if config.use_adapter else None
        self.text_transfer = TextTransfer(config) if config.text_transfer else None
        self.void_embedding = nn.Parameter(torch.empty(1, config.embed_dim))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MaskAdapterForOpenVocabularySegmentation):
            init.normal_(module.void_embedding)

    @classmethod
    def from_parts(
        cls,
        clip: PreTrainedModel,
        mask_generator: PreTrainedModel | None = None,
        adapter: MaskAdapterModel | Literal["new"] | None = None,
        void_embedding: Tensor | None = None,
        **fields: Any,
    ) -> MaskAdapterForOpenVocabularySegmentation:
        """Put a model together from its parts. Their weights are not copied, and the configuration follows from them.

        Args:
            clip: the CLIP, this package's or one of Transformers' own, which is wrapped.
            mask_generator: a [`FcClipMaskGenerator`], [`UniversalMaskGenerator`] or [`SamMaskGenerator`]; `None` if
                masks always come from the caller.
            adapter: a [`MaskAdapterModel`], whose configuration's other fields are taken over; `"new"` for one with
                initial weights, to be trained; or `None`: masks are classified by pooling.
            void_embedding: embedding of void, `(1, embed_dim)`; by default random. It counts in training, and for
                generators with a class branch of their own, which need the one that they were trained with.
            **fields: fields of [`MaskAdapterConfig`] in place of the adapter's, or of the defaults.

        Returns:
            The model, in eval mode.

        Raises:
            ValueError, TypeError: if a part or a field is not one of those above.
            StrictDataclassClassValidationError: if the parts do not fit together, with the fields that differ.
        """
        unknown = sorted(name for name in fields if not hasattr(MaskAdapterConfig, name))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no field of MaskAdapterConfig.")
        is_generator = isinstance(mask_generator, (FcClipMaskGenerator, PictureMaskGenerator))
        if mask_generator is not None and not is_generator:
            raise ValueError(
                f"{type(mask_generator).__name__} is no mask generator: wrap it, by "
                "UniversalMaskGenerator.from_segmenter(model, image_processor) or SamMaskGenerator.from_sam(model)."
            )
        clip = as_dense_clip(clip)
        of_adapter: dict[str, Any] = {}
        if isinstance(adapter, MaskAdapterModel):
            own = {field.name for field in dataclass_fields(MaskAdapterConfig)}
            own -= {field.name for field in dataclass_fields(PreTrainedConfig)} | _FIELDS_OF_OTHER_PARTS
            of_adapter = {name: getattr(adapter.config, name) for name in own}
        elif adapter not in ("new", None):
            raise ValueError(f'adapter must be a MaskAdapterModel, "new" or None, got {type(adapter).__name__}.')
        config = cls.config_class(
            clip_config=clip.config,
            mask_generator_config=None if mask_generator is None else mask_generator.config,
            use_adapter=adapter is not None,
            **of_adapter | fields,
        )
        if config.text_transfer:
            raise ValueError("from_parts makes no text transfer: convert a MAFT+ checkpoint instead.")
        with torch.device("meta"):
            model = cls(config)
        model.clip, model.mask_generator = clip, mask_generator
        model.adapter = MaskAdapterModel._from_config(config) if adapter == "new" else adapter
        if void_embedding is None:
            void_embedding = torch.randn(1, config.embed_dim)
        model.void_embedding = nn.Parameter(void_embedding.detach().to(clip.device, clip.dtype, copy=True))
        return model.eval()

    def encode_vocabulary(
        self,
        vocabulary: Vocabulary | Sequence | dict,
        tokenizer: Callable,
        templates: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> EncodedVocabulary:
        """Encode a vocabulary once, for any number of pictures.

        Args:
            vocabulary: a [`Vocabulary`] or what [`Vocabulary.parse`] reads: a list of names, a dict, a file.
            tokenizer: the CLIP's tokenizer, or a processor that holds one.
            templates: prompt templates with one `{}` each; by default the processor's, else the 14 published ones.
            batch_size: prompts encoded at a time.

        Raises:
            ValueError: if a name or template is unusable, see [`Vocabulary`].
        """
        if templates is None:
            templates = getattr(tokenizer, "prompt_templates", None) or PROMPT_TEMPLATES
        vocabulary = Vocabulary.parse(vocabulary)
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        names = distinct_names(vocabulary)

        def compute() -> Tensor:
            text_config = self.config.clip_config.text_config
            return embed_names(
                self.clip.get_text_features,
                names,
                tokenizer,
                max_length=text_config.max_position_embeddings,
                vocab_size=text_config.vocab_size,
                pad_to_max_length=self.config.clip_config.pads_text,
                lower_case=self.config.clip_config.lowers_text,
                device=self.void_embedding.device,
                templates=templates,
                batch_size=batch_size,
                tree_encoder=self.clip.tree_encoder,
            )

        if self.text_store is None:
            embeddings = compute()
        else:
            embeddings = self.text_store.embed(self.clip, tokenizer, names, templates, compute)
        return classify_names(vocabulary, names, embeddings, self.config.training_vocabulary)

    def classify_masks(
        self,
        image: Any,
        masks: Any,
        vocabulary: Vocabulary | Sequence | dict | EncodedVocabulary,
        processor: Any,
        **options: Any,
    ) -> list[ClassifiedMask]:
        """Label, score and embedding of masks from anywhere; see [`classify_masks`] for their forms and the options."""
        return classify_masks(self, image, masks, vocabulary, processor, **options)

    def score_texts(
        self,
        masks: Sequence[ClassifiedMask] | Sequence[Segment] | Tensor,
        texts: str | Sequence[str],
        processor: Any,
        **options: Any,
    ) -> Tensor:
        """Cosines of masks with texts, `(num_masks, num_texts)`, to find a region by words; see [`score_texts`]."""
        return score_texts(self, masks, texts, processor, **options)

    def generate_masks(
        self,
        feature_maps: tuple[Tensor, ...],
        pixel_values: Tensor | None,
        pixel_mask: Tensor | None = None,
        vocabulary: EncodedVocabulary | None = None,
        void_embeds: Tensor | None = None,
        output_auxiliary: bool = False,
    ) -> MaskGeneratorOutput:
        """Masks of whatever generator the model has.

        Args:
            feature_maps: the CLIP's feature maps; not needed by generators that look at pictures.
            pixel_values: as [`~MaskAdapterForOpenVocabularySegmentation.forward`]; needed by these only, and normalised
                with the CLIP's own pixel statistics.
            pixel_mask: likewise.
            vocabulary: as [`FcClipMaskGenerator`]; of no effect on the other generators, as the next two.
            void_embeds: normalised embedding of void, `(1, embed_dim)`.
            output_auxiliary: whether to return the earlier predictions too.

        Raises:
            ValueError: if the generator needs pictures and there are none.
        """
        if not isinstance(self.mask_generator, PictureMaskGenerator):
            return self.mask_generator(  # type: ignore[misc]
                feature_maps, vocabulary, void_embeds, output_auxiliary=output_auxiliary, return_dict=True
            )
        if pixel_values is None:
            raise ValueError(f"{type(self.mask_generator).__name__} looks at pictures, so give pixel_values.")
        clip_config = self.config.clip_config
        image_sizes = _image_sizes(pixel_values, pixel_mask)
        pictures = restore_pictures(pixel_values, image_sizes, clip_config.pixel_mean, clip_config.pixel_std)
        return self.mask_generator(pictures, tuple(pixel_values.shape[-2:]))

    def get_void_embeds(self) -> Tensor:
        """Normalised embedding of void, `(1, embed_dim)`."""
        return F.normalize(self.void_embedding, dim=-1)

    def project_features(self, dense_features: Tensor) -> Tensor:
        """What the adapter sees of the picture: dense features in the space shared with texts.

        Args:
            dense_features: CLIP's dense features, `(batch_size, feature_dim, height, width)`.

        Returns:
            `(batch_size, embed_dim, height, width)`; with `config.mix_projected_positions`, MAFT+'s mixture of them.
        """
        if not self.config.mix_projected_positions:
            return self.clip.project_dense(dense_features)
        batch_size, channels, height, width = dense_features.shape
        mixed = dense_features.contiguous().view(batch_size, height, width, channels)
        return self.clip.project(mixed).permute(0, 3, 1, 2)

    def adapt_texts(
        self, vocabulary: EncodedVocabulary, void_embeds: Tensor, projected_features: Tensor | None
    ) -> tuple[EncodedVocabulary, Tensor]:
        """Text and void embeddings as the out-of-vocabulary branch uses them for these pictures.

        Args:
            vocabulary: the encoded vocabulary.
            void_embeds: normalised embedding of void, `(1, embed_dim)`.
            projected_features: from [`~MaskAdapterForOpenVocabularySegmentation.project_features`]; only a text
                transfer needs them.

        Returns:
            The same, or with a text transfer embeddings for each picture: `(batch_size, num_synonyms, embed_dim)` and
            `(batch_size, 1, embed_dim)`.
        """
        if self.text_transfer is None:
            return vocabulary, void_embeds
        texts = torch.cat([vocabulary.text_embeds.to(void_embeds.dtype), void_embeds])
        adapted = self.text_transfer(texts, projected_features)
        return replace(vocabulary, text_embeds=adapted[:, :-1]), adapted[:, -1:]

    def embed_masks(
        self,
        dense_features: Tensor,
        masks: Tensor,
        are_logits: bool,
        pixel_values: Tensor | None = None,
        mask_embedding: MaskEmbedding | None = None,
        mask_pooling: MaskPooling | None = None,
        projected_features: Tensor | None = None,
        output_semantic_activation_maps: bool = True,
        left_out: Tensor | None = None,
    ) -> MaskAdapterOutput:
        """Mask embeddings by the adapter, by mask pooling, or from masked crops.

        Args:
            dense_features: CLIP's dense features, `(batch_size, feature_dim, height, width)`.
            masks: mask logits or masks in [0, 1], `(batch_size, num_masks, mask_height, mask_width)`, covering the
                padded picture.
            are_logits: whether they are logits.
            pixel_values: the padded picture, needed for `"crop"`.
            mask_embedding: instead of the configuration's.
            mask_pooling: likewise.
            projected_features: from [`~MaskAdapterForOpenVocabularySegmentation.project_features`], if they are there
                already.
            output_semantic_activation_maps: whether `"adapter"` also returns activation maps and pooled features.
            left_out: masks whose embedding is of no use, `(batch_size, num_masks)` bool; the adapter takes them for
                empty, which costs it nothing.

        Returns:
            `mask_embeddings`; with `"adapter"` also the activation maps and pooled features, if wanted.

        Raises:
            ValueError: for an unknown method, or `"adapter"` without an adapter.
        """
        method = mask_embedding or self.config.mask_embedding
        if method == "adapter":
            if self.adapter is None:
                raise ValueError('This model has no adapter: use mask_embedding="pooling" or "crop".')
            binary_masks = (masks.sigmoid() if are_logits else masks) > self.config.mask_threshold
            if left_out is not None:
                binary_masks &= ~left_out[..., None, None]
            if projected_features is None:
                projected_features = self.project_features(dense_features)
            return self.adapter(
                projected_features,
                binary_masks,
                dense_features,
                self.clip.project,
                output_semantic_activation_maps=output_semantic_activation_maps,
                adapter_implementation=self.config.adapter_implementation,
                return_dict=True,
            )
        threshold = 0.0 if are_logits else 0.5
        if method == "pooling":
            form = mask_pooling or self.config.mask_pooling
            if form not in ("hard", "area", "any"):
                raise ValueError(f'mask_pooling must be "hard", "area" or "any", got {form!r}.')
            weights = pooling_weights(masks, dense_features.shape[-2:], form, threshold)
            return MaskAdapterOutput(mask_embeddings=self.clip.project(pool_inside_masks(dense_features, weights)))
        if method == "crop":
            if masks.shape[1] == 0:
                return MaskAdapterOutput(
                    mask_embeddings=dense_features.new_zeros(*masks.shape[:2], self.config.embed_dim)
                )
            clip_config = self.config.clip_config
            side = -(-clip_config.image_size // clip_config.size_divisor) * clip_config.size_divisor
            embeddings = embed_crops(
                self.clip.get_image_features, pixel_values, masks, side, self.config.crop_margin, threshold
            )
            return MaskAdapterOutput(mask_embeddings=embeddings)
        raise ValueError(f'mask_embedding must be "adapter", "pooling" or "crop", got {method!r}.')

    def ensemble(
        self,
        in_vocabulary_logits: Tensor | None,
        out_vocabulary_logits: Tensor,
        vocabulary: EncodedVocabulary,
        valid_masks: Tensor | None = None,
        void_probabilities: Tensor | None = None,
    ) -> Tensor:
        """Class scores from both branches, `(batch_size, num_masks, num_classes + 1)`.

        Without in-vocabulary logits, as for the caller's masks and for generators that know no vocabulary, the mask
        embeddings alone decide about classes. Void then is as probable as is told, by default not at all.

        Args:
            in_vocabulary_logits: class logits of the generator, `(batch_size, num_masks, num_classes + 1)`, void last.
            out_vocabulary_logits: class logits of the mask embeddings, of the same shape.
            vocabulary: says which classes are seen.
            valid_masks: masks that the out-of-vocabulary branch counts for, `(batch_size, num_masks)`; default all.
            void_probabilities: probability of void of each mask, `(batch_size, num_masks)`, without in-vocabulary
                logits.
        """
        if in_vocabulary_logits is None:
            if self.config.warmup_scoring:
                return out_vocabulary_logits.float().softmax(dim=-1)
            probabilities = out_vocabulary_logits[..., :-1].float().softmax(dim=-1)
            if void_probabilities is None:
                void_probabilities = torch.zeros_like(probabilities[..., 0])
            void = void_probabilities[..., None]
            return log_with_void(probabilities * (1 - void), void)
        alpha, beta = self.config.ensemble_alpha, self.config.ensemble_beta
        weight = torch.where(vocabulary.seen_classes, alpha, beta).expand_as(out_vocabulary_logits[..., :-1])
        if valid_masks is not None:
            weight = weight * valid_masks[..., None]
        return geometric_ensemble(in_vocabulary_logits, out_vocabulary_logits, weight)

    def _void_probabilities(self, generated: MaskGeneratorOutput, out_vocabulary_logits: Tensor) -> Tensor | None:
        """Probability of void of masks from a generator without class logits, `(batch_size, num_masks)`."""
        if generated.masks_queries_logits is None:
            return None
        void = generated.void_probabilities
        if void is None:
            best = out_vocabulary_logits[..., :-1].float().softmax(dim=-1).amax(dim=-1)
            void = (best < self.config.background_threshold).float()
        return void if generated.valid_masks is None else void.masked_fill(~generated.valid_masks, 1.0)

    def _check_inputs(self, pixel_values: Tensor, vocabulary: EncodedVocabulary, masks: Tensor | None) -> None:
        if not isinstance(vocabulary, EncodedVocabulary):
            raise ValueError(
                "vocabulary must be an encoded vocabulary: vocabulary = model.encode_vocabulary(names, processor)."
            )
        if pixel_values.ndim != 4:
            raise ValueError(
                f"pixel_values must have shape (batch_size, channels, height, width), got {tuple(pixel_values.shape)}."
            )
        if masks is None and self.mask_generator is None:
            raise ValueError("This model has no mask generator: give masks=, e.g. from processor(images, masks=...).")
        if masks is not None and (masks.ndim != 4 or masks.shape[0] != pixel_values.shape[0]):
            raise ValueError(
                "masks must have shape (batch_size, num_masks, height, width) and cover the padded pictures (batch of "
                f"{pixel_values.shape[0]}), got {tuple(masks.shape)}."
            )

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        vocabulary: EncodedVocabulary,
        masks: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        mask_embedding: MaskEmbedding | None = None,
        mask_pooling: MaskPooling | None = None,
        output_semantic_activation_maps: bool = False,
        output_auxiliary: bool = False,
        skip_void_masks: bool = False,
        feature_maps: tuple[Tensor, ...] | None = None,
        generator_output: MaskGeneratorOutput | None = None,
        original_sizes: Tensor | None = None,  # noqa: ARG002
        num_masks: Tensor | None = None,  # noqa: ARG002
    ) -> MaskAdapterSegmentationOutput:
        """Segment pictures, or classify the caller's masks, with a vocabulary.

        Args:
            pixel_values: normalised, padded pictures, `(batch_size, 3, height, width)`.
            vocabulary: from [`~MaskAdapterForOpenVocabularySegmentation.encode_vocabulary`].
            masks: masks in [0, 1] that cover the padded pictures, `(batch_size, num_masks, mask_height, mask_width)`.
                No generator is run, and void plays no part.
            pixel_mask: 1 for pixels of the picture, 0 for padding, `(batch_size, height, width)`; default no padding.
            mask_embedding: `"adapter"`, `"pooling"` or `"crop"` instead of the configuration's.
            mask_pooling: `"hard"`, `"area"` or `"any"` instead of the configuration's.
            output_semantic_activation_maps: whether to return the adapter's maps.
            output_auxiliary: whether the generator returns its earlier predictions too.
            skip_void_masks: whether the adapter leaves out masks that the generator finds void with a probability above
                one half. Panoptic results stay exactly the same, since they drop these masks whatever their class;
                semantic and instance results would change.
            feature_maps: the CLIP's feature maps of these pictures, to compare methods without computing them again.
            generator_output: the generator's output for these pictures, likewise.
            original_sizes: what the processor returns beside the inputs; not used here, and accepted so that
                `model(**inputs, vocabulary=vocabulary)` works.
            num_masks: likewise.

        Raises:
            ValueError: if an input does not fit, saying what was expected.
        """
        self._check_inputs(pixel_values, vocabulary, masks)
        if feature_maps is None:
            feature_maps = self.clip.get_feature_maps(pixel_values)
        void_embeds = self.get_void_embeds()
        are_logits = masks is None
        if not are_logits:
            generator_output = MaskGeneratorOutput()
            masks = masks.float()
        else:
            if generator_output is None:
                generator_output = self.generate_masks(
                    feature_maps, pixel_values, pixel_mask, vocabulary, void_embeds, output_auxiliary
                )
            masks = generator_output.masks_queries_logits.float()

        dense_features = feature_maps[-1]
        projected_features = None if self.text_transfer is None else self.project_features(dense_features)
        left_out = None
        if skip_void_masks and generator_output.in_vocabulary_logits is not None:
            left_out = void_probability(generator_output.in_vocabulary_logits) > VOID_FOR_CERTAIN
        embedded = self.embed_masks(
            dense_features,
            masks,
            are_logits,
            pixel_values,
            mask_embedding,
            mask_pooling,
            projected_features,
            output_semantic_activation_maps,
            left_out,
        )
        adapted_vocabulary, adapted_void_embeds = self.adapt_texts(vocabulary, void_embeds, projected_features)
        out_vocabulary_logits = open_vocabulary_logits(
            embedded.mask_embeddings, adapted_vocabulary, adapted_void_embeds, self.clip.get_logit_scale()
        )
        valid_masks = None
        if self.config.ensemble_on_valid_masks:
            threshold = 0.0 if are_logits else 0.5
            cells = pooling_weights(masks, dense_features.shape[-2:], "hard", threshold)
            valid_masks = cells.amax(dim=(-2, -1))
        class_logits = self.ensemble(
            generator_output.in_vocabulary_logits,
            out_vocabulary_logits,
            vocabulary,
            valid_masks,
            self._void_probabilities(generator_output, out_vocabulary_logits),
        )
        return MaskAdapterSegmentationOutput(
            class_queries_logits=class_logits,
            masks_queries_logits=generator_output.masks_queries_logits,
            mask_probabilities=None if are_logits else masks,
            valid_masks=generator_output.valid_masks,
            mask_embeddings=embedded.mask_embeddings,
            semantic_activation_maps=embedded.semantic_activation_maps if output_semantic_activation_maps else None,
            in_vocabulary_logits=generator_output.in_vocabulary_logits,
            out_vocabulary_logits=out_vocabulary_logits,
            image_sizes=_image_sizes(pixel_values, pixel_mask),
            padded_size=torch.tensor(pixel_values.shape[-2:], device=pixel_values.device),
            generator_output=generator_output if are_logits else None,
        )


AutoModelForUniversalSegmentation.register(MaskAdapterConfig, MaskAdapterForOpenVocabularySegmentation, exist_ok=True)


__all__ = ["MaskAdapterForOpenVocabularySegmentation", "MaskAdapterSegmentationOutput"]
