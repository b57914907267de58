"""Golden folders: inputs and results of the published implementations, and how closely they must be met.

`MASKADAPTER_FIXTURES` names a folder of golden folders; without it the small subset committed here is used. Sizes,
names and thresholds are read from each folder's `meta.json`, so that another folder of the same form is tested too.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

FIXTURES = Path(os.environ.get("MASKADAPTER_FIXTURES") or Path(__file__).parents[1] / "fixtures")

RTOL = ATOL = 1e-4
TIMES_NOISE = 10
PIXEL_SHARE = 1e-3


def folders(*archs: str) -> list:
    """Parameters for a test: the golden folders of some architectures, or one that is skipped."""
    found = [path.parent for path in sorted(FIXTURES.glob("*/meta.json"))]
    matching = [path for path in found if Golden(path).meta["arch"].startswith(archs)]
    if matching:
        return [pytest.param(path, id=path.name) for path in matching]
    reason = f"no golden folder of {' or '.join(archs)} in {FIXTURES.name}: set MASKADAPTER_FIXTURES to the full set"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


class Golden:
    """One golden folder.

    Args:
        folder: its path.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        return _tensors(self.folder / "inputs.safetensors")

    @property
    def outputs(self) -> dict[str, torch.Tensor]:
        return _tensors(self.folder / "outputs.safetensors")

    def tokenizer(self, split: str = "test"):
        """The reference's own token ids of this folder's prompts, called as a Hugging Face tokenizer is."""
        prompts = self.meta["prompts"] if "prompts" in self.meta else self.meta[f"{split}_prompts"]
        name = "prompt_tokens" if "prompt_tokens" in self.inputs else f"{split}_prompt_tokens"
        end = max(max(row) for row in self.inputs[name].tolist())
        ids = {
            prompt: row[: row.index(end) + 1] for prompt, row in zip(prompts, self.inputs[name].tolist(), strict=True)
        }
        return lambda texts, **kwargs: {"input_ids": [ids[text] for text in texts]}

    def assert_close(self, actual: torch.Tensor, name: str, at_least: float = 0.0) -> None:
        """Fail unless a tensor is within the usual tolerance, or a few times the recorded noise, of a golden one.

        A tensor that the committed subset leaves out is not compared; `MASKADAPTER_FIXTURES` has them all.
        """
        if name not in self.outputs and self.meta.get("is_subset", False):
            return
        expected = self.outputs[name].float()
        noise, _ = self.meta["noise_mkldnn_off_1thread"].get(name, (0.0, 0.0))
        tolerance = max(ATOL, TIMES_NOISE * noise, at_least)
        torch.testing.assert_close(
            actual.float().reshape(expected.shape),
            expected,
            rtol=RTOL,
            atol=tolerance,
            msg=lambda text: f"{name}: {text}",
        )

    def assert_same_pixels(self, actual: torch.Tensor, name: str) -> None:
        """Fail if more than one pixel in a thousand differs from a golden map or stack of masks."""
        if name not in self.outputs and self.meta.get("is_subset", False):
            return
        expected = self.outputs[name].long()
        assert actual.shape == expected.shape, name
        assert (actual.long() != expected).float().mean() <= PIXEL_SHARE, name

    def assert_same_segments(self, result: dict, name: str) -> None:
        """Fail unless a panoptic result has the golden segments in the golden places."""
        self.assert_same_pixels(result["segmentation"], f"{name}.panoptic_seg")
        if f"{name}.segments_info" in self.outputs:
            expected = [tuple(row) for row in self.outputs[f"{name}.segments_info"][:, [0, 2]].tolist()]
            assert [(segment["id"], segment["label_id"]) for segment in result["segments_info"]] == expected, name

    def assert_same_instances(self, result: dict, name: str) -> None:
        """Fail unless there is for each golden instance one of its class, score and mask, and no other.

        The order may differ where scores tie.
        """
        scores = self.outputs[f"{name}.instances.scores"].tolist()
        classes = self.outputs[f"{name}.instances.classes"].tolist()
        masks = self.outputs[f"{name}.instances.masks"].bool()
        left = list(range(len(result["segments_info"])))
        assert len(left) == len(scores), name
        for score, label, mask in zip(scores, classes, masks, strict=True):
            for row in left:
                found = result["segments_info"][row]
                if found["label_id"] != label or abs(found["score"] - score) > ATOL:
                    continue
                if (result["segmentation"][row] != mask).float().mean() <= PIXEL_SHARE:
                    left.remove(row)
                    break
            else:
                pytest.fail(f"{name}: no instance of class {label} with score {score}")


@lru_cache(maxsize=8)
def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
