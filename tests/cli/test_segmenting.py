"""What the commands that segment pictures do only once."""

import os
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from hf_maskadapter import cli
from hf_maskadapter.data.scenes import draw_scene, split_seed
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel


@pytest.fixture
def counts(monkeypatch) -> dict[str, int]:
    """How often a picture was decoded, turned to RGB, and seen by the CLIP's image tower."""
    counts = {"decoded": 0, "converted": 0, "seen": 0}
    load, convert, see = ImageFile.ImageFile.load, Image.Image.convert, ConvNextClipModel.get_feature_maps

    def counted_load(self):
        counts["decoded"] += bool(self.tile)
        return load(self)

    def counted_convert(self, mode=None, *args, **kwargs):
        counts["converted"] += mode == "RGB"
        return convert(self, mode, *args, **kwargs)

    def counted_see(self, pixel_values):
        counts["seen"] += len(pixel_values)
        return see(self, pixel_values)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted_load)
    monkeypatch.setattr(Image.Image, "convert", counted_convert)
    monkeypatch.setattr(ConvNextClipModel, "get_feature_maps", counted_see)
    return counts


@pytest.fixture
def scene(tmp_path, monkeypatch) -> Path:
    """A drawn scene as a PNG with a palette, so that it must be turned to RGB."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scene.png"
    Image.fromarray(draw_scene((*split_seed("test"), 3, 0)).picture).quantize(64).save(path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "--task", "panoptic", "--json", "--masks", "--output", "painted.png"),
        ("annotate", "--format", "coco-panoptic", "--copy-pictures", "--output", "annotated"),
    ],
)
def test_a_picture_is_decoded_turned_to_rgb_and_looked_at_once(scene, counts, capsys, arguments):
    status = cli.main([arguments[0], os.fspath(scene), *arguments[1:], "--labels", "sand, water", "--device", "cpu"])
    assert status == 0
    assert counts == {"decoded": 1, "converted": 1, "seen": 1}
    assert "does not look like the drawn scenes" not in capsys.readouterr().err


def test_a_picture_unlike_the_embedded_models_world_is_told_without_looking_twice(scene, counts, capsys):
    Image.linear_gradient("L").save(scene)
    assert cli.main(["segment", os.fspath(scene), "--labels", "sand, water", "--output", "out.png"]) == 0
    assert counts["seen"] == 1
    assert "does not look like the drawn scenes" in capsys.readouterr().err
