"""Which files of a folder go into a repository on the Hub, and under what names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin

import hf_maskadapter

from ..files import read_json
from .adapter_weights import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME
from .card_results import card_with_results, eval_results
from .cards import CARD_NAME, OPEN_VOCABULARY_LIMITS, ModelCardFacts, fill_repository, is_hub_id, render_card
from .endpoint import HANDLER_NAME, endpoint_files
from .released import RELEASED_PRESETS, released_card
from .remote_code import save_remote_code

Kind = Literal["model", "adapter", "dataset", "results"]
KINDS: tuple[Kind, ...] = ("model", "adapter", "dataset", "results")

_FIGURES = (".jpeg", ".jpg", ".png", ".svg", ".webp")
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "model": (".json", ".jsonl", ".md", ".safetensors", ".txt", *_FIGURES),
    "adapter": (".json", ".jsonl", ".md", ".safetensors", ".txt", *_FIGURES),
    "dataset": (".json", ".md", ".parquet", ".txt", *_FIGURES),
    "results": (".json", ".jsonl", ".md", *_FIGURES),
}
_NAMES_WITHOUT_SUFFIX = ("LICENSE", "NOTICE")
_LEFT_OUT_FOLDERS = ("checkpoints", "progress", "__pycache__")
_WEIGHT_INDEX = "model.safetensors.index.json"
_CONVERSION_REPORT = "conversion.json"
_RESULTS = "results.json"

REPLACED = (".safetensors", ".safetensors.index.json", ".py")
"""Files of a repository with these endings go when a new version of a model does not have them."""


@dataclass
class Contents:
    """What is to be published.

    Attributes:
        kind: What it is.
        files: Path in the repository → local file, or content.
        left_out: Files of the folder that stay at home.
        notes: What the user should know.
    """

    kind: Kind
    files: dict[str, Path | bytes]
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def repo_type(self) -> str:
        """The Hub's word for the kind of repository."""
        return "dataset" if self.kind == "dataset" else "model"

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            path: len(source) if isinstance(source, bytes) else source.stat().st_size
            for path, source in sorted(self.files.items())
        }


def recognize(folder: Path) -> Kind:
    """What a folder holds.

    Raises:
        ValueError: if there is no such folder, or it holds nothing that can be published.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        return "adapter"
    if (folder / "config.json").is_file():
        return "model"
    if (folder / "vocabulary.json").is_file() and any((folder / "data").glob("*.parquet")):
        return "dataset"
    if (folder / _RESULTS).is_file():
        return "results"
    inside = [name for name in ("model", "adapter") if (folder / name).is_dir()]
    raise ValueError(
        f"{folder} holds nothing to publish: expected a saved model (config.json), adapter weights "
        f"({ADAPTER_CONFIG_NAME}), a data set of maskadapter prepare (vocabulary.json, data/*.parquet) or the "
        f"output of maskadapter evaluate ({_RESULTS})."
        + (f" Did you mean {' or '.join(str(folder / name) for name in inside)}?" if inside else "")
    )


def collect(
    folder: Path,
    staging: Path,
    repository: str,
    *,
    kind: Kind | None = None,
    subfolder: str = "",
    card: str | None = None,
    base_model: str | None = None,
) -> Contents:
    """Gather what is published of a folder. Results do not need their model's card here, see [`add_results_card`].

    Args:
        folder: what to publish.
        staging: an empty folder for files that are written on the way; must last as long as the result.
        repository: where it goes, for the card's code.
        kind: what the folder holds; by default what it looks like.
        subfolder: where in the repository it goes.
        card: Markdown in place of the folder's README.md or a generated card.
        base_model: of an adapter, in place of the one that it names.

    Raises:
        ValueError: if something is missing or does not fit; the message says what.
    """
    found = kind or recognize(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    contents = _select(folder, found)
    own_card = contents.files.pop(CARD_NAME, None) if found != "dataset" else None
    if found == "model":
        written = _stage_model(folder, staging, contents, is_at_root=not subfolder.strip("/"))
        generated = _model_card
    elif found == "adapter":
        written = _stage_adapter(folder, base_model)
        generated = _adapter_card
    else:
        written, generated = {}, None
    contents.files |= written
    if generated is not None:
        text = card or (own_card.read_text(encoding="utf-8") if isinstance(own_card, Path) else generated(contents))
        if found == "adapter" and card is None:
            text = _with_base_model(text, read_json(folder / ADAPTER_CONFIG_NAME)["base_model"], written)
        contents.files[CARD_NAME] = fill_repository(text, repository).encode()
    prefix = f"{subfolder.strip('/')}/" if subfolder.strip("/") else ""
    if found == "results" and not prefix:
        prefix = f"evaluation/{_results_name(folder)}/"
    # A configuration names its code without a folder, so code lies at the repository's root.
    contents.files = {
        path if path.endswith(".py") else prefix + path: source for path, source in contents.files.items()
    }
    return contents


def add_results_card(contents: Contents, folder: Path, card: str, repository: str) -> None:
    """Put the numbers of an evaluation into the card of the model that they are about.

    Args:
        contents: the evaluation's files; gets the card.
        folder: the evaluation's output.
        card: the model's card as it is; may be empty.
        repository: the model's repository.

    Raises:
        ValueError: if the results cannot be read.
    """
    results = read_json(folder / _RESULTS)
    try:
        name, kind = results["dataset"]["name"], results["benchmark"] or results["dataset"]["name"]
        entries = eval_results(results["results"], name, kind, results["split"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / _RESULTS} was not written by maskadapter evaluate: it lacks {error}.") from error
    contents.files[CARD_NAME] = card_with_results(card, repository.rpartition("/")[2], entries).encode()


def _select(folder: Path, kind: Kind) -> Contents:
    contents = Contents(kind, {})
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        is_wanted = name.suffix.lower() in _SUFFIXES[kind] or name.name in _NAMES_WITHOUT_SUFFIX
        if is_wanted and not set(name.parts[:-1]) & set(_LEFT_OUT_FOLDERS):
            contents.files[name.as_posix()] = path
        else:
            contents.left_out.append(name.as_posix())
    return contents


def _stage_model(folder: Path, staging: Path, contents: Contents, *, is_at_root: bool) -> dict[str, Path | bytes]:
    """Configuration and processor with their code, to go with the weights; and what an endpoint serves at the root."""
    _check_weights(folder)
    config = AutoConfig.from_pretrained(folder)
    model_class = _model_class(config, folder)
    processor: ProcessorMixin | None = None
    if (folder / "processor_config.json").is_file():
        processor = AutoProcessor.from_pretrained(folder)
    elif hasattr(model_class, "encode_vocabulary"):
        contents.notes.append(
            "there is no processor in the folder, so neither the pipeline nor class names can be used; save one beside "
            "the model (processor.save_pretrained), or convert the checkpoint with --tokenizer."
        )
    save_remote_code(staging, model_class, config, processor)
    if is_at_root and processor is not None and hasattr(model_class, "encode_vocabulary"):
        for name, content in endpoint_files().items():
            if name == HANDLER_NAME or name not in contents.files:  # requirements that someone wrote stay
                (staging / name).write_bytes(content)
    contents.left_out = [name for name in contents.left_out if not (staging / name).is_file()]
    return {path.relative_to(staging).as_posix(): path for path in staging.rglob("*") if path.is_file()}


def _check_weights(folder: Path) -> None:
    index = folder / _WEIGHT_INDEX
    if index.is_file():
        shards = set(read_json(index)["weight_map"].values())
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise ValueError(f"{folder} is incomplete: {', '.join(missing)} of {_WEIGHT_INDEX} is not there.")
    elif not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} holds no weights: there is no model.safetensors. Save the model anew.")


def _model_class(config: PreTrainedConfig, folder: Path) -> type[PreTrainedModel]:
    architecture = (config.architectures or ["none"])[0]
    model_class = getattr(hf_maskadapter, architecture, None)
    if model_class is None:
        raise ValueError(f"{folder} holds a model of class {architecture}, which is none of this package.")
    return model_class


def _stage_adapter(folder: Path, base_model: str | None) -> dict[str, Path | bytes]:
    if not (folder / ADAPTER_WEIGHTS_NAME).is_file():
        raise ValueError(f"{folder} is incomplete: there is no {ADAPTER_WEIGHTS_NAME}.")
    description = read_json(folder / ADAPTER_CONFIG_NAME)
    if base_model is not None and base_model != description["base_model"]:
        description |= {"base_model": base_model, "base_revision": None}
    base = str(description["base_model"])
    if not is_hub_id(base):
        raise ValueError(
            f"The adapter's base model is {base}, a folder that nobody else has. Publish that model, too, and give its "
            "name: --base_model owner/name (base_model=)."
        )
    return {ADAPTER_CONFIG_NAME: (json.dumps(description, indent=2) + "\n").encode()}


def _model_card(contents: Contents) -> str:
    """A card for a model that brings none: that of its released checkpoint, or one that claims nothing."""
    report = contents.files.get(_CONVERSION_REPORT)
    preset = read_json(report).get("preset") if isinstance(report, Path) else None
    if preset in RELEASED_PRESETS:
        return released_card(preset)
    return render_card(
        ModelCardFacts(
            title="Open-vocabulary segmenter with Mask-Adapter",
            summary="Segments pictures by any labels in words: semantic, panoptic and instance segmentation.",
            model_name="mask-adapter",
        )
    )


def _adapter_card(contents: Contents) -> str:
    source = contents.files[ADAPTER_CONFIG_NAME]
    description = json.loads(source if isinstance(source, bytes) else source.read_bytes())
    base = str(description["base_model"])
    return render_card(
        ModelCardFacts(
            title="Mask-Adapter weights",
            summary="Adapter weights for open-vocabulary segmentation: what training changed, and nothing else.",
            model_name="mask-adapter",
            kind="adapter",
            attached_to=base,
            base_models=[base],
            limits=(
                "They fit the base model's CLIP only; another one is refused.",
                *OPEN_VOCABULARY_LIMITS,
            ),
        )
    )


def _with_base_model(card: str, named: str, written: Mapping[str, Path | bytes]) -> str:
    """An adapter's card that names its published base model, where training knew a folder only."""
    description = written[ADAPTER_CONFIG_NAME]
    assert isinstance(description, bytes)
    base = json.loads(description)["base_model"]
    if base == named:
        return card
    parsed: Any = ModelCard(card.replace(f"`{named}`", f"`{base}`"))
    parsed.data.base_model = [base]
    return str(parsed)


def _results_name(folder: Path) -> str:
    results = read_json(folder / _RESULTS)
    name = "-".join(
        str(part) for part in (results.get("benchmark") or folder.resolve().name, results.get("split")) if part
    )
    return re.sub(r"[^\w.-]+", "-", name)


__all__ = ["KINDS", "REPLACED", "Contents", "Kind", "add_results_card", "collect", "recognize"]
