"""What an exported folder holds: its graphs, how pictures and texts become their inputs, and what made them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
FORM = 1
"""Counts changes of the folder's form; a runtime reads its own."""

_HASHED_AT_A_TIME = 2**20


class ExportedModelError(ValueError):
    """A folder holds no exported model, or a damaged one, or one of another version; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a segmenter does outside its graphs.

    Args:
        image_processor: fields of [`Preparation`].
        prompt_templates, lower_case: how a class name becomes texts.
        context_length: tokens that the text tower reads.
        pads_text: whether texts are padded to that length with `padding_id`.
        padding_id, vocab_size: of the tokenizer and the text tower.
        embed_dim: length of embeddings.
        num_feature_maps: of the picture graph.
        void_embedding: embedding of void.
        logit_scale, generator_logit_scale: factors between cosines and logits; the generator's is `None` without one.
        training_vocabulary, ensemble_alpha, ensemble_beta, ensemble_on_valid_masks: of the geometric ensemble.
        mask_embedding, mask_pooling, mask_threshold: how a mask becomes an embedding.
        warmup_scoring: scores of the caller's masks as the published warm-up model gives them.
        object_threshold, overlap_threshold, instance_threshold, instance_top_k: of post-processing.
    """

    image_processor: dict[str, Any]
    prompt_templates: list[str]
    lower_case: bool
    context_length: int
    pads_text: bool
    padding_id: int
    vocab_size: int
    embed_dim: int
    num_feature_maps: int
    void_embedding: list[float]
    logit_scale: float
    generator_logit_scale: float | None
    training_vocabulary: list[list[str]] | None
    ensemble_alpha: float
    ensemble_beta: float
    ensemble_on_valid_masks: bool
    mask_embedding: str
    mask_pooling: str
    mask_threshold: float
    warmup_scoring: bool
    object_threshold: float
    overlap_threshold: float
    instance_threshold: float
    instance_top_k: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `manifest.json`.

    Args:
        format: `"onnx"` or `"openvino"`.
        dtype: `"float32"`, `"bfloat16"` or `"int8"`.
        graphs: the file of each graph, by its name.
        files: bytes and SHA-256 of every file but the manifest.
        settings: see [`Settings`].
        model: name and hash of the model that was exported.
        versions: of everything that the graphs depend on.
        difference: from PyTorch, as measured after the export.
    """

    format: str
    dtype: str
    graphs: dict[str, str]
    files: dict[str, dict[str, Any]]
    settings: Settings
    model: dict[str, str]
    versions: dict[str, str]
    difference: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is written."""
        return {"exported_by": "hf_maskadapter", "form": FORM, **asdict(self)}


def is_exported(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an exported model, as far as its manifest's presence tells."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: str | os.PathLike[str], *, verify: bool = False) -> Manifest:
    """The manifest of an exported model.

    Args:
        folder: the model's.
        verify: whether every file is read to compare its hash; otherwise its size is looked at.

    Raises:
        FileNotFoundError: if there is no such folder.
        ExportedModelError: if it holds no exported model, one of another form, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if not is_exported(folder):
        raise ExportedModelError(f"{folder} holds no exported model: make one by maskadapter export MODEL.")
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        form, maker = content.pop("form"), content.pop("exported_by")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ExportedModelError(f"{folder / MANIFEST} is no manifest of an exported model.") from error
    if maker != "hf_maskadapter" or form != FORM:
        raise ExportedModelError(
            f"{folder} was exported in form {form}, and this version reads form {FORM}: export the model again, or "
            "use the version that wrote it."
        )
    try:
        settings = Settings(**content.pop("settings"))
        manifest = Manifest(settings=settings, **content)
    except TypeError as error:
        raise ExportedModelError(f"{folder / MANIFEST} is damaged ({error}): export the model again.") from error
    _check_files(folder, manifest.files, verify)
    return manifest


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], verify: bool) -> None:
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            raise ExportedModelError(f"{folder} lacks its file {name}: copy the whole folder, or export it again.")
        if path.stat().st_size != facts["bytes"] or (verify and sha256(path) != facts["sha256"]):
            raise ExportedModelError(f"{path} is not the file that was exported: copy it again, or export it again.")


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of every file of a folder but the manifest."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def sha256(path: Path) -> str:
    """Hash of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_AT_A_TIME):
            digest.update(chunk)
    return digest.hexdigest()


__all__ = ["ExportedModelError", "Manifest", "Settings", "describe_files", "is_exported", "read_manifest"]
