"""Model cards, all from one template: what a model is, how to use it, training, results, limits, licences, citation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..provenance import versions_text
from .card_results import eval_results
from .citations import bibtex
from .markdown import markdown_table, percent

REPOSITORY_PLACEHOLDER = "owner/name"
"""Stands for the repository in the code of a card until the card is published, see [`fill_repository`]."""

CARD_NAME = "README.md"
_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_TAGS = ("open-vocabulary-segmentation", "mask-adapter", "panoptic-segmentation", "zero-shot", "clip")

OPEN_VOCABULARY_LIMITS = (
    "A label that is not in the picture can still win pixels: the labels compete with each other, and only with each "
    "other. Add labels for the background (wall, floor, sky).",
    "Masks come from a generator that was trained on fixed classes; things unlike them may get no mask at all.",
    "What CLIP has learnt from pictures of the web, its biases included, decides which label wins.",
)
"""Limits that every segmenter of this kind has."""


@dataclass(frozen=True, kw_only=True)
class ModelCardFacts:
    """What a model card tells.

    Args:
        title: first heading.
        summary: what it is, in a sentence or two.
        model_name: short name for the metadata's results.
        description: further paragraphs.
        kind: a complete segmenter, or an adapter that goes on top of `attached_to`.
        attached_to: an adapter's base model.
        labels: labels for the examples.
        base_models: Hub ids of what the model was made from.
        datasets: data sets it was trained on.
        licence: identifier of the licence, as the Hub knows it; `None` if the card's author has to choose one.
        licence_name, licence_link: for the identifier "other".
        training, results, limits, licences: paragraphs and list entries of these sections.
        eval_results: measured numbers for the metadata.
        citations: names of papers, see [`bibtex`].
        conversion_command: command that makes the model from a released checkpoint.
    """

    title: str
    summary: str
    model_name: str
    description: Sequence[str] = ()
    kind: Literal["model", "adapter"] = "model"
    attached_to: str | None = None
    labels: Sequence[str] = ("cat, kitten", "sofa, couch", "wall", "floor")
    base_models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    training: Sequence[str] = ()
    results: Sequence[str] = ()
    limits: Sequence[str] = OPEN_VOCABULARY_LIMITS
    licenses: Sequence[str] = ()
    eval_results: Sequence[EvalResult] = ()
    citations: Sequence[str] = ("mask-adapter", "fc-clip")
    conversion_command: str | None = None

    def metadata(self) -> ModelCardData:
        """The card's metadata."""
        return ModelCardData(
            library_name="transformers",
            pipeline_tag="image-segmentation",
            license=self.license,
            license_name=self.license_name,
            license_link=self.license_link,
            base_model=list(self.base_models) or None,
            datasets=list(self.datasets) or None,
            tags=[*_TAGS, *(["custom_code"] if self.kind == "model" else [])],
            metrics=sorted({result.metric_type for result in self.eval_results}) or None,
            model_name=self.model_name if self.eval_results else None,
            eval_results=list(self.eval_results) or None,
        )


def render_card(facts: ModelCardFacts) -> str:
    """A model card as Markdown with metadata; its code names the repository [`REPOSITORY_PLACEHOLDER`]."""
    card = ModelCard.from_template(
        facts.metadata(),
        template_path=str(_TEMPLATE),
        title=facts.title,
        summary=facts.summary,
        description=facts.description,
        kind=facts.kind,
        attached_to=facts.attached_to,
        placeholder=REPOSITORY_PLACEHOLDER,
        labels=json.dumps(list(facts.labels), ensure_ascii=False),
        conversion_command=facts.conversion_command,
        training=facts.training or ["Nothing is known about the training of this model."],
        results=facts.results or ["None were measured."],
        limits=facts.limits,
        licenses=facts.licenses
        or ["Nobody has chosen a licence for these weights yet; that of what they were trained from and on applies."],
        citations=bibtex(facts.citations),
    )
    return str(card).rstrip("\n") + "\n"


def fill_repository(card: str, repository: str) -> str:
    """A card whose code names the repository, or a folder, in place of the placeholder."""
    return card.replace(f'"{REPOSITORY_PLACEHOLDER}"', json.dumps(repository))


def percentages(metrics: Mapping[str, Any]) -> str:
    """Fractions by name as a Markdown table in per cent; what is no fraction is left out."""
    rows = [(name, percent(value)) for name, value in metrics.items() if isinstance(value, float) and 0 <= value <= 1]
    return markdown_table(["in per cent", ""], rows)


def training_card(
    arguments: Mapping[str, Any],
    result: Mapping[str, Any],
    num_samples: int | None,
    num_classes: int | None,
    versions: Mapping[str, str],
    *,
    kind: Literal["model", "adapter"] = "model",
) -> str:
    """The card of what `maskadapter train` or `maskadapter pretrain` made.

    Args:
        arguments: the training arguments, by name; the `stage` of a pre-training is "clip".
        result: the training's result: `step`, `metrics`, `seconds`.
        num_samples: how many samples it has, if that is known.
        num_classes: how many classes it has; `None` if it has captions.
        versions: versions of what the result depends on.
        kind: the complete model, or the adapter alone.
    """
    stages = {
        "warmup": "ground-truth warm-up: the adapter on annotated masks",
        "mixed": "mixed masks: the adapter on annotated and predicted masks, which an IoU matcher pairs",
        "generator": "mask generator",
        "clip": "contrastive pre-training of the CLIP; the mask generator and the adapter are to be trained next",
    }
    base = str(arguments.get("base_model") or arguments["model"])
    base_models = [base] if is_hub_id(base) else []
    start = base if base_models else "/".join(Path(base).parts[-2:])
    dataset = str(arguments["dataset"])
    dataset_name = dataset if is_hub_id(dataset) else Path(dataset).name
    names = (
        "stage preset crop_size batch_size learning_rate weight_decay lr_scheduler max_grad_norm mixed_precision seed "
        "ema_decay matcher iou_threshold consistency_weight class_weight"
    )
    options = {name: arguments[name] for name in names.split() if arguments.get(name) is not None}
    texts = "captions" if num_classes is None else f"{num_classes} classes"
    script = "pretrain_clip.py" if arguments["stage"] == "clip" else "train.py"
    size = "a stream" if num_samples is None else f"{num_samples} samples"
    metrics = dict(result.get("metrics") or {})
    measured = eval_results(
        {"": {"metrics": metrics}},
        dataset_name,
        dataset if is_hub_id(dataset) else "custom",
        arguments.get("validation_split"),
    )
    title = "Mask-Adapter" if kind == "adapter" else "Open-vocabulary segmenter with Mask-Adapter"
    facts = ModelCardFacts(
        title=f"{title}, trained on {dataset_name}",
        summary="Segments pictures by any labels in words: semantic, panoptic and instance segmentation."
        if kind == "model"
        else "Adapter weights for open-vocabulary segmentation: what training changed, and nothing else.",
        model_name=f"mask-adapter-{arguments['stage']}",
        kind=kind,
        attached_to=base,
        base_models=base_models,
        datasets=[dataset] if is_hub_id(dataset) else (),
        training=[
            f"Stage: {stages[arguments['stage']]}. {result['step']} optimiser steps on {dataset_name} ({size}, "
            f"{texts}), {result['seconds']:.0f} seconds, starting from {start}.",
            markdown_table(["option", "value"], list(options.items())),
            f"The same with `scripts/{script}` of the package and the options in `training_arguments.json`.",
        ],
        results=[
            f"Validation at the end of the training, split {arguments.get('validation_split')!r}:",
            percentages({name: value for name, value in metrics.items() if name != "loss"}),
            *([f"Contrastive loss: {metrics['loss']:.4f}."] if "loss" in metrics else []),
            f"Measured with {versions_text(versions)}.",
        ]
        if metrics
        else ["Nothing was measured during this training: no validation data were given (`--validation_split`)."],
        eval_results=measured,
    )
    return render_card(facts)


def is_hub_id(name: str) -> bool:
    """Whether a name could be that of a Hub repository and is no folder here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


__all__ = [
    "CARD_NAME",
    "OPEN_VOCABULARY_LIMITS",
    "REPOSITORY_PLACEHOLDER",
    "ModelCardFacts",
    "fill_repository",
    "is_hub_id",
    "percentages",
    "render_card",
    "training_card",
]
