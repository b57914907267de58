"""Columns of pictures in, columns of results out."""

import io
import json
import pickle

import datasets
import numpy as np
import pandas
import pytest
from PIL import Image

from hf_maskadapter import BatchSegmenter, Vocabulary, load_segmenter
from hf_maskadapter.data.scenes import SceneDataset
from hf_maskadapter.model.masks import coco_mask

LABELS = ["red circle", "blue square", "sand", "water"]


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    drawn = SceneDataset("test", 3)
    return [drawn[index]["image"] for index in range(3)]


@pytest.fixture(scope="module")
def expected(scenes):
    """What the pipeline says of each."""
    segmenter = load_segmenter(device="cpu")
    return segmenter(scenes, candidate_labels=LABELS, subtask="panoptic", return_segments=True)


@pytest.fixture(scope="module")
def segmenter() -> BatchSegmenter:
    return BatchSegmenter(vocabulary=LABELS, task="panoptic", device="cpu", embeddings=True)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def test_every_form_of_pictures_gives_the_pipelines_results(segmenter, scenes, expected, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for path, scene in zip(paths, scenes, strict=True):
        scene.save(path)
    arrays = [np.asarray(scene) for scene in scenes]
    encoded = [png(scene) for scene in scenes]
    forms = (scenes, paths, arrays, encoded, [{"bytes": one, "path": None} for one in encoded], np.stack(arrays))
    for pictures in forms:
        columns = segmenter({"image": pictures, "id": [7, 8, 9]})
        assert columns["id"] == [7, 8, 9]
        assert columns["error"] == [None] * 3
        for number, result in enumerate(expected):
            assert columns["labels"][number] == result.labels
            assert columns["scores"][number] == result.scores.tolist()
            assert columns["areas"][number] == result.areas.tolist()
            assert columns["boxes"][number] == result.boxes("xywh").tolist()
            masks = [coco_mask(json.loads(mask), result.size) for mask in columns["masks"][number]]
            assert np.array_equal(np.array(masks).reshape(result.masks.shape), result.masks)
            stated = np.array([segment.embedding for segment in result])
            assert np.array_equal(np.array(columns["embeddings"][number], dtype=np.float32), stated)
    assert sum(map(len, expected)) > 0


def test_label_maps_hold_the_places_of_classes(scenes):
    segmenter = BatchSegmenter(vocabulary=LABELS, output="label_map", device="cpu")
    columns = segmenter({"picture": scenes[:1]})
    (result,) = load_segmenter(device="cpu")(scenes[:1], candidate_labels=LABELS, return_segments=True)
    values = np.asarray(Image.open(io.BytesIO(columns["label_map"][0])))
    for segment in result:
        assert np.array_equal(values == LABELS.index(segment.label), segment.mask)
    assert columns["scores"] == [[None] * len(result)]


def test_damaged_pictures_get_an_error_and_the_others_their_results(segmenter, scenes, expected):
    columns = segmenter({"image": [b"no picture", scenes[1], "nowhere.png"]})
    assert columns["labels"] == [[], expected[1].labels, []]
    assert "not a picture" in columns["error"][0]
    assert columns["error"][1] is None
    assert "nowhere.png" in columns["error"][2]
    assert columns["height"] == [None, expected[1].height, None]


def test_it_is_pickled_without_its_model(segmenter, scenes):
    segmenter({"image": scenes[:1]})
    packed = pickle.dumps(segmenter)
    assert len(packed) < 10_000
    assert pickle.loads(packed)({"image": scenes[:1]}) == segmenter({"image": scenes[:1]})


def test_batches_of_equal_sizes_only(scenes):
    one, three = (
        BatchSegmenter(vocabulary=LABELS, task="panoptic", device="cpu", batch_size=size)({"image": pictures})
        for size, pictures in ((1, scenes), (3, [scenes[0], scenes[1].resize((96, 192)), scenes[2]]))
    )
    assert [three["labels"][place] for place in (0, 2)] == [one["labels"][place] for place in (0, 2)]
    assert [three["areas"][place] for place in (0, 2)] == [one["areas"][place] for place in (0, 2)]


def test_it_maps_data_sets_and_pandas_frames(segmenter, scenes, expected):
    dataset = datasets.Dataset.from_dict({"image": scenes}, features=datasets.Features({"image": datasets.Image()}))
    mapped = dataset.map(segmenter, batched=True, batch_size=2, with_rank=True, remove_columns="image")
    assert mapped["labels"][:] == [result.labels for result in expected]
    frames = list(segmenter.map_in_pandas(iter([pandas.DataFrame({"bytes": [png(scene) for scene in scenes]})])))
    assert [list(labels) for labels in frames[0]["labels"]] == [result.labels for result in expected]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "what to look for"),
        ({"vocabulary": LABELS, "task": "depth"}, "task must be"),
        ({"vocabulary": LABELS, "output": "label_map", "task": "instance"}, "output='rle'"),
        ({"vocabulary": LABELS, "batch_size": 0}, "at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(arguments, part):
    with pytest.raises(ValueError, match=part):
        BatchSegmenter(**arguments)


def test_a_batch_without_pictures_is_refused(segmenter):
    with pytest.raises(KeyError, match="column="):
        segmenter({"caption": ["a"]})
    assert segmenter.vocabulary == Vocabulary.from_list(LABELS)
