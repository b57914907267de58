"""An exported model against the pipeline in PyTorch: pictures and masks of many shapes, and the same errors."""

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.data.scenes import STUFF, SceneDataset
from support.extras import needs_extra

needs_extra("export", "onnx", "onnxscript", "onnxruntime")

SCENE = SceneDataset("test", 1).scene(0)
LABELS = list(dict.fromkeys([*(thing.name for thing in SCENE.things), "red circle", *STUFF]))


@pytest.fixture(scope="module")
def scene():
    return Image.fromarray(SCENE.picture)


def both(exported, pipeline, inputs, labels=LABELS, **options):
    return tuple(run(inputs, candidate_labels=labels, return_segments=True, **options) for run in (exported, pipeline))


def assert_same_pixels(actual, expected, least=0.999):
    assert actual.size == expected.size
    assert (actual.label_map(65535) == expected.label_map(65535)).mean() >= least


# Wide, tall and transposed; odd; smaller than a cell; larger than the model sees.
@pytest.mark.parametrize("size", [(192, 192), (97, 301), (301, 97), (64, 640), (1, 1), (7, 50), (511, 300)])
def test_label_maps_of_many_shapes(exported, pipeline, scene, size):
    picture = scene.resize(size[::-1])
    assert_same_pixels(*both(exported, pipeline, picture))


@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
def test_segments_with_scores_and_embeddings(exported, pipeline, scene, subtask):
    actual, expected = both(exported, pipeline, scene, subtask=subtask)
    assert actual.labels == expected.labels
    assert len(actual) > 0
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-3)
    assert (actual.masks == expected.masks).mean() >= 0.999
    for one, other in zip(actual, expected, strict=True):
        assert one.embedding @ other.embedding >= 0.9999


def test_the_form_of_transformers_pipelines(exported, pipeline, scene):
    actual, expected = (run(scene, candidate_labels=LABELS, subtask="instance") for run in (exported, pipeline))
    assert [one["label"] for one in actual] == [one["label"] for one in expected]
    assert {one["mask"].mode for one in actual} == {"L"}
    assert list(actual[0]) == list(expected[0])


def test_a_batch_is_padded_as_in_pytorch(exported, pipeline, scene):
    pictures = [scene, scene.resize((100, 300)), scene.crop((0, 0, 180, 110))]
    for actual, expected in zip(*both(exported, pipeline, pictures, batch_size=3), strict=True):
        assert_same_pixels(actual, expected)


def test_one_class(exported, pipeline, scene):
    actual, expected = both(exported, pipeline, scene, ["red circle"])
    assert actual.labels == expected.labels == ["red circle"]
    assert actual.areas.tolist() == [192 * 192]


def test_847_classes(exported, pipeline, scene):
    labels = [f"thing {number}" for number in range(841)] + LABELS
    assert_same_pixels(*both(exported, pipeline, scene, labels))


@pytest.mark.parametrize("method", ["adapter", "pooling"])
@pytest.mark.parametrize("number", [0, 1, 500])
def test_own_masks(exported, pipeline, scene, method, number):
    generator = np.random.default_rng(number)
    masks = np.zeros((number, 192, 192), bool)
    for mask in masks:
        top, left = generator.integers(0, 190, 2)
        mask[top : top + generator.integers(1, 100), left : left + generator.integers(1, 100)] = True
    actual, expected = both(exported, pipeline, {"image": scene, "masks": masks}, mask_embedding=method)
    assert len(actual) == len(expected) == number
    same = [one.class_id == other.class_id for one, other in zip(actual, expected, strict=True)]
    assert sum(same) >= 0.998 * number  # ties between synonyms of a label aside
    np.testing.assert_allclose(actual.scores, expected.scores, atol=2e-3)


@pytest.mark.parametrize("form", ["area", "any"])
def test_forms_of_pooling(exported, pipeline, scene, form):
    options = {"mask_embedding": "pooling", "mask_pooling": form}
    assert_same_pixels(*both(exported, pipeline, scene, **options))


def test_features_are_handed_on_without_padding(exported, pipeline, scene):
    picture = scene.resize((250, 190))
    seen = []
    for run in (exported, pipeline):
        run(picture, candidate_labels=LABELS, on_features=lambda features: seen.append(np.asarray(features)))
    assert seen[0].shape == seen[1].shape
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4)


def test_a_generator_gives_results_one_by_one(exported, scene):
    asked = []

    def pictures():
        for number in range(3):
            asked.append(number)
            yield scene

    results = exported(pictures(), candidate_labels=["red circle"])
    next(results)
    assert asked == [0]


def test_labels_of_a_pictures_own(exported, scene):
    first, second = exported(
        [{"image": scene, "candidate_labels": "sky"}, scene], candidate_labels="grass", return_segments=True
    )
    assert (first.labels, second.labels) == (["sky"], ["grass"])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"candidate_labels": []},
        {"candidate_labels": ["cat", "cat"]},
        {"candidate_labels": LABELS, "subtask": "none"},
        {"candidate_labels": LABELS, "threshold": 0.5},
        {"candidate_labels": LABELS, "subtask": "instance", "overlap_mask_area_threshold": 0.5},
        {"candidate_labels": LABELS, "mask_embedding": "none"},
        {"candidate_labels": LABELS, "mask_embedding": "pooling", "mask_pooling": "none"},
        {"candidate_labels": ["long " * 100]},
    ],
)
def test_the_same_errors_as_in_pytorch(exported, pipeline, scene, arguments):
    messages = []
    for run in (exported, pipeline):
        with pytest.raises(ValueError, match=r".") as error:
            run(scene, **arguments)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_crops_are_not_exported(exported, scene):
    with pytest.raises(ValueError, match='mask_embedding="crop" is not exported'):
        exported(scene, candidate_labels=LABELS, mask_embedding="crop")


def test_a_picture_that_cannot_be_read(exported, tmp_path):
    (tmp_path / "none.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="is not a picture in a known format"):
        exported(tmp_path / "none.png", candidate_labels=LABELS)


def test_a_picture_that_a_viewer_turns(exported, tmp_path):
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    segments = exported(tmp_path / "turned.jpg", candidate_labels=LABELS, return_segments=True)
    assert segments.size == (40, 20)
