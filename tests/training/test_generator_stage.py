"""The mask generator's stage."""

import pytest
import torch

from support import toy
from support.stage_batches import batch, compute


class TestMaskGenerator:
    def test_supervises_every_prediction_of_the_decoder(self):
        stage = toy.stage("generator")
        given = batch((3,))
        losses, _ = compute(stage, [given])
        single = toy.stage("generator", toy.segmenter(mask_generator_config=toy.generator_config(decoder_layers=2)))
        assert losses["loss_mask"] > 1.5 * compute(single, [given])[0]["loss_mask"]

    def test_cached_feature_maps_take_the_place_of_pictures(self):
        stage, given = toy.stage("generator"), batch()
        with torch.no_grad():
            feature_maps = stage.segmenter.clip.get_feature_maps(given["pixel_values"])
        cached = {name: value for name, value in given.items() if name != "pixel_values"} | {
            "feature_maps": feature_maps
        }
        assert compute(stage, [cached])[0] == compute(stage, [given])[0]

    def test_learns(self):
        stage, given = toy.stage("generator"), batch((3, 7))
        optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-2)
        totals = []
        for _ in range(40):
            losses, _ = compute(stage, [given])
            torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
            optimizer.step()
            totals.append(sum(losses.values()).item())
        assert totals[-1] < 0.7 * totals[0]

    def test_a_model_without_a_generator_is_an_error(self):
        with pytest.raises(ValueError, match="no mask generator"):
            toy.stage("generator", toy.segmenter(mask_generator_config=None))
