"""The demo, what the miniature says of its world, and the embedded checkpoint itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskadapter import cli
from hf_maskadapter.data.scenes import CLASS_NAMES, STUFF, draw_scene, scene_vocabulary, split_seed
from hf_maskadapter.miniature import checkpoint_path, load_miniature
from hf_maskadapter.miniature.demonstration import demonstrate
from hf_maskadapter.miniature.known_world import KnownWorld
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from lab.miniature import measuring
from lab.miniature import segmenter as miniature_segmenter
from lab.miniature.building import build_segmenter, build_segmenter_config, save_segmenter
from lab.miniature.pretraining import build_clip_config, build_tokenizer


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> str:
    """Folder of a miniature of random weights."""
    folder = tmp_path_factory.mktemp("untrained")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    clip = ConvNextClipModel(build_clip_config(tokenizer)).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miniature_segmenter, "SCENES_OF_KNOWN_WORLD", 24)
        save_segmenter(build_segmenter(clip, build_segmenter_config(clip.config), seed=0), tokenizer, folder)
    return str(folder)


def test_the_demo_shows_all_panels_and_names_every_segment(untrained, tmp_path, capsys):
    output = tmp_path / "new" / "demo.png"
    assert cli.main(["demo", "--model", untrained, "--seed", "3", "--output", str(output)]) == 0
    picture = Image.open(output)
    assert picture.width > 4 * 384
    assert picture.height > 2 * 384
    heading, *lines, written = capsys.readouterr().out.splitlines()
    scene = draw_scene((*split_seed("test"), 1, 3))
    assert heading.startswith("Given the true masks")
    assert written == f"{output}: written"
    assert len(lines) == len(scene.segments_info)
    assert {line.partition(":")[0] for line in lines} == {
        CLASS_NAMES[segment["category_id"]] for segment in scene.segments_info
    }


def test_the_demo_takes_the_users_labels(untrained, tmp_path, capsys):
    arguments = ["demo", "--model", untrained, "--output", str(tmp_path / "demo.png")]
    assert cli.main([*arguments, "--labels", "star, something unheard of"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert lines
    for line in lines:
        assert line.partition("Mask-Adapter says ")[2] in ("star", "something unheard of")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "demo.txt"], "must end in one of"),
        (["--output", "demo.png", "--seed", "-1"], "--seed must not be negative"),
        (["--output", "demo.png", "--labels", " , "], "class"),
        (["--output", "demo.png", "--model", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_gets_one_line(options, message, untrained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in options else ["--model", untrained]
    assert cli.main(["demo", *model, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_default_labels_hold_what_is_shown_and_as_much_that_is_not():
    scene = draw_scene((*split_seed("test"), 1, 0))
    names = scene_vocabulary().names
    shown = {thing.name for thing in scene.things}
    assert shown < set(names)
    assert set(STUFF) < set(names)
    assert len(set(names) - shown - set(STUFF)) >= len(shown)


def test_a_picture_unlike_those_fitted_is_far_from_the_known_world():
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 2, 8)[:, None, None]

    def features(count, offset=0.0):
        return [scale * torch.randn(4, 8, 3, 5, generator=generator) + offset for _ in range(count)]

    world = KnownWorld.of_scenes(features(100), features(20))
    assert all((world.distance(more) <= world.threshold).float().mean() > 0.9 for more in features(5))
    assert (world.distance(torch.cat(features(5, offset=3.0))) > world.threshold).all()


def test_the_known_world_is_saved_beside_the_model(untrained):
    world = KnownWorld.load(untrained)
    segmenter, processor = load_miniature(untrained)
    scenes = [Image.fromarray(draw_scene((*split_seed("test"), 2, index)).picture) for index in range(8)]
    inputs = processor(images=scenes, return_tensors="pt")["pixel_values"]
    assert sum(world.holds(segmenter.clip.get_feature_maps(inputs)[-1])) >= 6
    assert np.isfinite(world.threshold)
    assert world.threshold > 0


def test_scores_are_told_where_the_labels_hold_the_truth_and_only_there(untrained, tmp_path, capsys):
    arguments = ["demo", "--model", untrained, "--seed", "3", "--output", str(tmp_path / "demo.png")]
    scene = draw_scene((*split_seed("test"), 1, 3))
    names = [CLASS_NAMES[segment["category_id"]] for segment in scene.segments_info]
    assert cli.main([*arguments, "--labels", ",".join(dict.fromkeys(names))]) == 0
    assert "mIoU Mask pooling " in capsys.readouterr().out.splitlines()[0]
    assert cli.main([*arguments, "--labels", "star, something unheard of"]) == 0
    assert "mIoU" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def embedded():
    try:
        checkpoint_path()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return load_miniature()


def segment(model, folder, picture, capsys, *options):
    picture.save(folder / "picture.png")
    arguments = ["segment", str(folder / "picture.png"), *(["--model", model] if model else []), *options]
    status = cli.main([*arguments, "--labels", "red star, grass", "--output", str(folder / "out.png")])
    return status, capsys.readouterr().err


def test_a_picture_of_another_world_is_warned_about_and_segmented_all_the_same(untrained, tmp_path, capsys):
    scene = Image.fromarray(draw_scene((*split_seed("train"), 0, 0)).picture)
    assert segment(untrained, tmp_path, scene, capsys) == (0, "")
    noise = np.random.default_rng(0).integers(0, 2, (192, 192, 3), dtype=np.uint8) * 255
    status, error = segment(untrained, tmp_path, Image.fromarray(noise), capsys)
    assert status == 0
    assert "mean nothing here" in error
    assert "maskadapter convert" in error
    assert len(error.splitlines()) == 1


def test_without_an_embedded_model_the_error_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("hf_maskadapter.miniature.__file__", str(tmp_path / "__init__.py"))
    status, error = segment(None, tmp_path, Image.new("RGB", (32, 32)), capsys)
    assert status == 2
    assert "build_miniature.py" in error
    assert "--model" in error


def test_the_embedded_model_is_small_and_names_what_is_drawn(embedded):
    folder = checkpoint_path()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25 * 2**20
    segmenter, processor = embedded
    vocabulary = segmenter.encode_vocabulary([[name] for name in CLASS_NAMES], processor, ["{}"])
    scenes = measuring.cache_scenes(segmenter, vocabulary, "validation", 40)
    measured = measuring.mask_accuracies(segmenter, vocabulary, scenes, ("pooling/area", "adapter"))
    pooling, adapter = (measured[method].estimates()["all"].value for method in ("pooling/area", "adapter"))
    assert adapter > 75
    assert adapter > pooling + 5
    end_to_end = measuring.segmentation_counts(segmenter, vocabulary, scenes[:20], ("adapter",))["adapter"]
    assert end_to_end.estimates()["stuff"].value > 80


def test_the_embedded_model_may_choose_among_all_names_unless_the_user_gives_some(embedded):
    demonstration = demonstrate(*embedded, seed=5)
    assert tuple(demonstration.comparison.names) == CLASS_NAMES
    assert demonstration.scores().startswith("mIoU Mask pooling ")


def test_the_embedded_model_takes_no_photograph_for_a_scene(embedded):
    segmenter, processor = embedded
    world = KnownWorld.load(checkpoint_path())
    scenes = [Image.fromarray(draw_scene((*split_seed("test"), 3, index)).picture) for index in range(40)]
    inputs = processor(images=scenes, return_tensors="pt")["pixel_values"]
    assert sum(world.holds(segmenter.clip.get_feature_maps(inputs)[-1])) >= 38
    if "MASKADAPTER_SHARED" not in os.environ:
        pytest.skip("needs photographs: set MASKADAPTER_SHARED")
    photographs = Path(os.environ["MASKADAPTER_SHARED"]) / "data" / "coco_panoptic_sample" / "input_images"
    for path in sorted(photographs.iterdir()):
        inputs = processor(images=[Image.open(path).convert("RGB")], return_tensors="pt")["pixel_values"]
        assert world.holds(segmenter.clip.get_feature_maps(inputs)[-1]) == [False], path.name
