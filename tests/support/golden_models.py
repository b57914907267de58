"""Models converted from golden folders, with everything that weights cannot tell taken from the folder itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hf_maskadapter.conversion import Conversion, convert_checkpoint

CHECKPOINT_FILES = ("checkpoint.pth", "open_clip.safetensors")

_SETTINGS_OF_HPARAMS = {
    "geometric_ensemble_alpha": "ensemble_alpha",
    "geometric_ensemble_beta": "ensemble_beta",
    "ensemble_on_valid_mask": "ensemble_on_valid_masks",
    "mask_threshold": "mask_threshold",
    "object_mask_threshold": "object_threshold",
    "overlap_threshold": "overlap_threshold",
    "test_topk_per_image": "instance_top_k",
    "nheads": "decoder_heads",
}


def read_meta(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of a golden folder."""
    return json.loads((Path(folder) / "meta.json").read_text(encoding="utf-8"))


def checkpoint_file(folder: str | os.PathLike[str]) -> Path:
    """The checkpoint of a golden folder."""
    return next(Path(folder) / name for name in CHECKPOINT_FILES if (Path(folder) / name).is_file())


def golden_settings(folder: str | os.PathLike[str], run: str | None = None) -> dict[str, Any]:
    """Settings for [`convert_checkpoint`] from a golden folder's `meta.json`.

    Args:
        folder: the golden folder.
        run: prefix of one of its runs, which may differ from the others in settings.
    """
    meta = read_meta(folder)
    clip = meta["open_clip_config"]
    settings = {
        "text_heads": clip["text_cfg"]["heads"],
        "image_size": clip["vision_cfg"]["image_size"],
        "norm_eps": meta["trunk"]["norm_eps"],
        "image_mean": meta["pixel_mean"],
        "image_std": meta["pixel_std"],
        "prompt_templates": meta["prompt_templates"],
    }
    hparams = meta.get("hparams", {})
    for name, setting in _SETTINGS_OF_HPARAMS.items():
        is_switched_off = "ensemble_" in setting and hparams.get(name, 0) < 0  # no ensemble without a generator
        if name in hparams and not is_switched_off:
            settings[setting] = hparams[name]
    if "train_classes" in meta:
        settings["training_vocabulary"] = meta["train_classes"]
    if "cdt_params" in hparams:
        _, settings["text_transfer_heads"] = hparams["cdt_params"]
        settings["text_transfer_panoptic"] = (meta["runs"][run] if run else hparams)["panoptic_on"]
    if meta["arch"] == "mask_adapter":
        settings["warmup_scoring"] = True
    return settings


def convert_golden(folder: str | os.PathLike[str], run: str | None = None, **changes: Any) -> Conversion:
    """Convert the checkpoint of a golden folder.

    Args:
        folder: the golden folder.
        run: prefix of one of its runs, which may differ from the others in settings.
        **changes: arguments of [`convert_checkpoint`], settings among them, that replace the folder's.
    """
    return convert_checkpoint(checkpoint_file(folder), **golden_settings(folder, run) | changes)
