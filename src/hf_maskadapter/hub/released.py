"""Cards of the released checkpoints' conversions: published numbers and measured ones, kept apart."""

from __future__ import annotations

from .cards import OPEN_VOCABULARY_LIMITS, ModelCardFacts, render_card
from .markdown import markdown_table
from .published import PUBLISHED, TITLES
from .released_models import RELEASED

RELEASED_PRESETS = {model.preset: model for model in RELEASED.values()}
"""The released checkpoints with Mask-Adapter, by preset."""

_TRAINING = {
    "fc-clip": (
        "CLIP and FC-CLIP's mask generator (trained on COCO panoptic) are frozen; the adapter and the void embedding "
        "were trained on COCO panoptic: a warm-up of 295,717 iterations on annotated masks (crops of 768, batch 8), "
        "then 49,286 on annotated and predicted masks (crops of 1,024, batch 24)."
    ),
    "maft-plus": (
        "MAFT+ fine-tuned CLIP's image tower and trained its mask generator on COCO-Stuff. All of it is frozen; the "
        "adapter was trained on COCO-Stuff, one mask for each class: a warm-up of 295,717 iterations on annotated "
        "masks (crops of 768, batch 8), then 49,286 on annotated and predicted masks (crops of 1,024, batch 24)."
    ),
}
_LICENSES = {
    "fc-clip": "FC-CLIP, code and weights of the mask generator: Apache-2.0 (its repository's licence).",
    "maft-plus": "MAFT+, code and weights of image tower and mask generator: MIT (its repository's licence).",
}


def released_card(preset: str) -> str:
    """The card of a released checkpoint's conversion.

    Raises:
        KeyError: if there is no such card, see `RELEASED_PRESETS`.
    """
    model = RELEASED_PRESETS[preset]
    published = [(TITLES[benchmark], f"{numbers[model.published_as]:.1f}") for benchmark, numbers in PUBLISHED.items()]
    citations = ["mask-adapter", "fc-clip", *(["maft-plus"] if model.family == "maft-plus" else [])]
    facts = ModelCardFacts(
        title=f"{model.title}, converted",
        summary=(
            "Segments pictures by any labels in words. The weights of the authors' checkpoint (Mask-Adapter, CVPR "
            "2025), unchanged, in the form of Hugging Face Transformers."
        ),
        description=[
            "An independent conversion, not a release of the authors. Golden files computed by the published "
            "implementations hold the conversion and the model to their results, for small models of the same layout.",
            *model.notes,
        ],
        model_name=preset,
        base_models=[model.clip, "owl10/Mask-Adapter"],
        datasets=["coco"],
        license="other",
        license_name="upstream-licences",
        license_link="https://github.com/hustvl/MaskAdapter/blob/main/LICENSE",
        training=[_TRAINING[model.family], "Nothing was trained for the conversion."],
        results=[
            "**Published** by the authors (mIoU in per cent, arXiv 2412.04533), with their code and lists of synonyms:",
            markdown_table(["benchmark", "published mIoU"], published),
            "**Measured here**: none. The released weights could not be downloaded where this package was built. To "
            "measure, convert the checkpoint and run, for example: `accelerate launch -m hf_maskadapter.cli evaluate "
            "--model MODEL --benchmark ade20k_150 --data_dir ADEChallengeData2016 --vocabulary "
            "ade20k_150_with_prompt_eng.txt --model_card README.md`, which writes the numbers into this card's "
            "metadata.",
        ],
        limits=[
            *OPEN_VOCABULARY_LIMITS,
            "Published numbers depend on Pillow's resampling, by about 0.2 mIoU between releases, and on the lists of "
            "synonyms.",
        ],
        licenses=[
            f"CLIP weights ([{model.clip}](https://huggingface.co/{model.clip})): MIT. They were trained on LAION-2B, "
            "pictures of the web whose rights are their owners'.",
            _LICENSES[model.family],
            "Mask-Adapter, code and released checkpoints: Apache-2.0 (its repository's licence). Check the page that "
            "you download from: it prevails.",
            "COCO and COCO-Stuff: annotations CC BY 4.0; the pictures are under the terms of use of Flickr.",
            "Conversion changes none of these. The package's own code: Apache-2.0.",
        ],
        citations=citations,
        conversion_command=f"maskadapter convert CHECKPOINT.pth --preset {preset} --output {preset}",
    )
    return render_card(facts)


__all__ = ["RELEASED_PRESETS", "released_card"]
