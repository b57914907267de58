"""Losses and gradients of both stages equal those of the published implementation, from pictures to gradients."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hf_maskadapter import EncodedVocabulary
from hf_maskadapter.conversion.adapter import ADAPTER_KEYS
from hf_maskadapter.training.adapter_stages import GroundTruthWarmup, MixedMaskTraining
from support.golden_models import convert_golden

FIXTURES = Path(os.environ.get("MASKADAPTER_FIXTURES", Path(__file__).parents[1] / "fixtures"))
LOSSES = {"loss_class": "train.loss_ce", "loss_consistency": "train.loss_cosine"}


class GoldenTraining:
    """The training part of a golden folder, with a stage that the published settings make of its converted model."""

    def __init__(self, folder):
        path = FIXTURES / folder
        self.inputs = load_file(path / "inputs.safetensors")
        self.outputs = load_file(path / "outputs.safetensors")
        self.meta = json.loads((path / "meta.json").read_text())
        self.segmenter = convert_golden(path).model
        hparams = self.meta["hparams"]
        if folder == "warmup_large":
            self.stage = GroundTruthWarmup(self.segmenter, self.vocabulary())
        else:
            self.stage = MixedMaskTraining(
                self.segmenter,
                self.vocabulary(),
                binarize_threshold=hparams["match_binarize_threshold"],
                iou_threshold=hparams["iou_threshold"],
                consistency_weight=hparams["cos_weight"],
                class_weight=hparams["class_weight"],
                count_empty_pairs=True,
                detach_target=self.meta["arch"] != "maft",
                train_void="void_embedding.weight" in self.meta["train"]["trainable"],
            )

    def vocabulary(self):
        """The training classes: golden text embeddings, without the void row."""
        synonyms = [len(names.replace(", ", ",").split(",")) for names in self.meta["train_classes"]]
        class_ids = torch.arange(len(synonyms)).repeat_interleave(torch.tensor(synonyms))
        text_embeds = self.outputs["train.text_classifier"][:-1]
        assert len(text_embeds) == len(class_ids)
        return EncodedVocabulary(
            text_embeds=text_embeds, class_ids=class_ids, seen_classes=torch.ones(len(synonyms), dtype=torch.bool)
        )

    def batch(self):
        """Both pictures, padded to one size."""
        mean, std = (torch.tensor(self.meta[f"pixel_{name}"])[:, None, None] for name in ("mean", "std"))
        images = [(self.inputs[f"train.image{i}"].float() - mean) / std for i in range(2)]
        height, width = (-(-max(image.shape[axis] for image in images) // 32) * 32 for axis in (1, 2))

        def pad(tensor):
            return F.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]))

        return {
            "pixel_values": torch.stack([pad(image) for image in images]),
            "mask_labels": [pad(self.inputs[f"train.img{i}.gt_masks"]) for i in range(2)],
            "class_labels": [self.inputs[f"train.img{i}.gt_classes"] for i in range(2)],
            "sample_id": ["0", "1"],
            "epoch": [0, 0],
        }


@pytest.fixture(scope="module", params=["warmup_large", "fcclip_large", "maftp_base"])
def trained(request):
    """Golden files, and what the stage computes of them."""
    path = FIXTURES / request.param / "outputs.safetensors"
    if not path.is_file() or "train.loss_ce" not in load_file(path):
        pytest.skip(f"MASKADAPTER_FIXTURES does not name a folder with the training part of {request.param}")
    golden = GoldenTraining(request.param)
    stage = golden.stage
    with torch.no_grad():
        prepared = stage.prepare(golden.batch())
    # The published losses average over the slots of the batch, absent pairs among them.
    output = stage(prepared.inputs, prepared.counts)
    sum(output["losses"].values()).backward()
    return golden, prepared, output


def test_losses(trained):
    golden, _, output = trained
    for name, loss in output["losses"].items():
        torch.testing.assert_close(loss.detach(), golden.outputs[LOSSES[name]][0], rtol=1e-4, atol=1e-4)


def test_gradients(trained):
    golden, _, _ = trained
    expected = {name: gradient for name, gradient in golden.outputs.items() if name.startswith("grad.")}
    converted = ADAPTER_KEYS.rename(expected, "grad.mask_adapter.", "adapter.")[0]
    if "grad.void_embedding.weight" in expected:
        converted["void_embedding"] = expected["grad.void_embedding.weight"]
    gradients = {name: parameter.grad for name, parameter in golden.stage.named_parameters()}
    assert gradients.keys() == converted.keys()
    for name, gradient in gradients.items():
        tolerance = 1e-3 * converted[name].abs().max().item()
        torch.testing.assert_close(
            gradient, converted[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_matches_and_labels(trained):
    golden, prepared, output = trained
    labels = prepared.inputs["labels"]
    for image, expected in enumerate(golden.outputs["train.labels"]):
        assert labels[image][labels[image] >= 0].tolist() == expected[expected >= 0].tolist()
    if "train.matched_labels" in golden.outputs:
        assert output["sums"]["matches"] == (golden.outputs["train.matched_labels"] >= 0).sum()


def test_frozen_parts_get_no_gradient(trained):
    golden, _, _ = trained
    updated = set(dict(golden.stage.named_parameters()))
    assert all(
        parameter.grad is None and not parameter.requires_grad
        for name, parameter in golden.segmenter.named_parameters()
        if name not in updated
    )
