"""Measured numbers in a model card's metadata (`eval_results`), which the Hub shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_TASK_NAMES = {"mean_iou": "semantic segmentation", "pq": "panoptic segmentation", "ap": "instance segmentation"}
_METRIC_NAMES = {"mean_iou": "mIoU", "pq": "PQ", "ap": "mask AP"}


def eval_results(
    methods: Mapping[str, Mapping[str, Any]], dataset_name: str, dataset_type: str, split: str | None
) -> list[EvalResult]:
    """Main numbers in per cent, as a model card's metadata take them.

    Args:
        methods: results of each method; only their `metrics` are read. What was not measured may be NaN or None.
        dataset_name: what readers call the data set.
        dataset_type: its identifier.
        split: the split that was evaluated.
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="image-segmentation",
            task_name=_TASK_NAMES[key],
            dataset_type=dataset_type,
            dataset_name=dataset_name,
            dataset_split=split,
            metric_type=key,
            metric_name=_METRIC_NAMES[key] + (f" ({name})" if len(methods) > 1 else ""),
            metric_value=round(100 * float(value), 2),  # a plain number: YAML writes NumPy's so that no tool reads them
        )
        for name, result in methods.items()
        for key in _METRIC_NAMES
        if (value := result["metrics"].get(key)) is not None and not math.isnan(value)
    ]


def card_with_results(card: str, model_name: str, new: Sequence[EvalResult]) -> str:
    """A model card with results in its metadata (`eval_results`), in place of earlier ones of the same kind.

    Args:
        card: the card, Markdown with or without metadata; may be empty.
        model_name: name of the model in the results, if the card has none yet.
        new: the results.

    Raises:
        ValueError: if the card's metadata cannot be read.
    """
    import yaml  # type: ignore[import-untyped]
    from huggingface_hub import ModelCard

    try:
        parsed: Any = ModelCard(card if card.startswith("---") else "---\n{}\n---\n" + card)
    except yaml.YAMLError as error:
        raise ValueError(f"The model card's metadata, between its lines of ---, are no YAML: {error}") from error

    def kind(entry: EvalResult) -> tuple[Any, ...]:
        return entry.dataset_type, entry.dataset_split, entry.metric_type, entry.metric_name

    replaced = {kind(entry) for entry in new}
    kept = [entry for entry in parsed.data.eval_results or [] if kind(entry) not in replaced]
    parsed.data.model_name = parsed.data.get("model_name") or model_name
    parsed.data.eval_results = [*kept, *new]
    return str(parsed)


def update_model_card(
    path: Path,
    model_name: str,
    dataset_name: str,
    dataset_type: str,
    split: str | None,
    methods: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write results into the metadata of a model card's file, see [`card_with_results`] and [`eval_results`].

    Args:
        path: the card, a Markdown file; made if it is not there.
        model_name: name of the model in the results, if the card has none yet.
        dataset_name: what readers call the data set.
        dataset_type: its identifier.
        split: the split that was evaluated.
        methods: results of each method.

    Raises:
        ValueError: if the card's metadata cannot be read.
        OSError: if the card cannot be written.
    """
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, card_with_results(card, model_name, eval_results(methods, dataset_name, dataset_type, split)))


__all__ = ["card_with_results", "eval_results", "update_model_card"]
