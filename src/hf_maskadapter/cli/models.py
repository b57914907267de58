"""`maskadapter models`: the models that have a name, what they are and take, and whether they are here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.options import option
from ..hub.markdown import markdown_table
from ..hub.published import PUBLISHED
from ..hub.released_models import RELEASED
from ..loading import MODEL_NAMES, ModelFacts, find_model, list_models, remove_model
from .errors import EXIT_OK
from .options import Command

#: How the table calls the benchmarks of published mean IoUs.
_COLUMNS = {
    "ade20k_847": "A-847",
    "ade20k_150": "A-150",
    "pascal_context_459": "PC-459",
    "pascal_context_59": "PC-59",
    "pascal_voc_20": "PAS-20",
}


@dataclass(kw_only=True)
class ModelsOptions:
    """What to do with the models: list them unless one is fetched or removed."""

    json: bool = option("the list as JSON", False)
    fetch: str | None = option("download and convert this model now", None, metavar="NAME")
    tokenizer: str | None = option(
        "CLIP's bpe_simple_vocab_16e6.txt.gz, or a folder or Hub id with its tokenizer, for --fetch where the Hub has "
        "none",
        None,
        metavar="FILE_OR_ID",
    )
    remove: str | None = option("delete this model from the cache", None, metavar="NAME")

    def __post_init__(self) -> None:
        if self.tokenizer is not None and self.fetch is None:
            raise ValueError("--tokenizer belongs to --fetch NAME")
        if self.fetch is not None and self.remove is not None:
            raise ValueError("give either --fetch or --remove")


def run(options: ModelsOptions) -> int:
    """List, fetch or remove models."""
    if options.remove is not None:
        print(f"freed {remove_model(options.remove) / 1e6:.1f} MB")
    elif options.fetch is not None:
        from .opening import silence_transformers

        silence_transformers()
        print(find_model(options.fetch, tokenizer=options.tokenizer))
    elif options.json:
        print(json.dumps([_record(facts) for facts in list_models()], indent=1, ensure_ascii=False))
    else:
        print(_as_text(list_models()))
    return EXIT_OK


def _published(facts: ModelFacts) -> Mapping[str, float]:
    """Published mean IoU in per cent by benchmark; no panoptic quality with Mask-Adapter was published."""
    if facts.name not in RELEASED:
        return {}
    title = RELEASED[facts.name].published_as
    return {benchmark: numbers[title] for benchmark, numbers in PUBLISHED.items()}


def _record(facts: ModelFacts) -> dict[str, Any]:
    return dataclasses.asdict(facts) | {"published_mean_iou": dict(_published(facts))}


def _as_text(models: Sequence[ModelFacts]) -> str:
    lines = []
    for facts in models:
        state = "here" if facts.is_here else f"{facts.download_bytes / 1e9:.2f} GB to download"
        lines += [
            f"{facts.name:<13} {facts.title}",
            f"{'':<13} {facts.num_parameters / 1e6:.1f} million parameters, {facts.disk_bytes / 1e9:.2f} GB on disk, "
            f"{facts.memory_bytes / 1e9:.2f} GB of weights; {facts.license}; {state}",
        ]
        published = _published(facts)
        if published:
            numbers = ", ".join(f"{title} {published[name]:.1f}" for name, title in _COLUMNS.items())
            lines.append(f"{'':<13} published mIoU: {numbers}")
    return "\n".join([*lines, "", 'maskadapter segment photo.jpg --model NAME --labels "cat, sofa" --output out.png'])


def models_table() -> str:
    """The list of models as the documentation shows it, in Markdown."""
    header = ["name", "what it is", "parameters", "download", "on disk", "licences", *_COLUMNS.values()]
    rows = []
    for facts in list_models():
        published = _published(facts)
        rows.append(
            [
                f"`{facts.name}`",
                facts.title,
                f"{facts.num_parameters / 1e6:.1f} M",
                f"{facts.download_bytes / 1e9:.2f} GB" if facts.download_bytes else "–",
                f"{facts.disk_bytes / 1e9:.2f} GB",
                facts.license,
                *(f"{published[name]:.1f}" if published else "–" for name in _COLUMNS),
            ]
        )
    return markdown_table(header, rows)


COMMAND = Command(
    name="models",
    summary="list the models that have a name, fetch or remove one",
    description=f"List the models that have a name ({', '.join(MODEL_NAMES)}): what they are and take, their licences, "
    "published numbers, and whether they are here. A released model is fetched and converted the first time that it is "
    "used; --fetch does it now.",
    options=ModelsOptions,
    run=run,
)
