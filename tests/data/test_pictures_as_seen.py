"""Every reader shows a model the picture that a viewer shows: one table of pictures for all of them."""

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_maskadapter import MaskAdapterImageProcessorPil
from hf_maskadapter.data import load_segmentation_dataset, open_pictures
from hf_maskadapter.data.captions import load_captioned_pictures
from hf_maskadapter.model.pictures import as_viewer_shows, read_picture
from support.pictures import VIEWED


def from_path(content, tmp_path):
    (tmp_path / "picture").write_bytes(content)
    return read_picture(tmp_path / "picture")


def from_bytes(content, tmp_path):
    return read_picture(content)


def from_undecoded_columns(content, tmp_path):
    return read_picture({"bytes": content, "path": None})


def by_image_processor(content, tmp_path):
    (tmp_path / "picture").write_bytes(content)
    processor = MaskAdapterImageProcessorPil(do_resize=False, do_normalize=False, size_divisor=1)
    return processor([tmp_path / "picture"], return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


def in_training_and_evaluation(content, tmp_path):
    rows = {"image": [{"bytes": content, "path": None}], "label_map": [np.zeros((8, 12), dtype=np.uint8)]}
    features = datasets.Features({"image": datasets.Image(), "label_map": datasets.Image()})
    return load_segmentation_dataset(datasets.Dataset.from_dict(rows, features=features), ["sky"])[0].image


def in_folders(content, tmp_path):
    for name, values in (("images/a.png", content), ("labels/a.png", None)):
        (tmp_path / name).parent.mkdir()
        if values is None:
            Image.fromarray(np.zeros((8, 12), dtype=np.uint8)).save(tmp_path / name)
        else:
            (tmp_path / name).write_bytes(values)
    return load_segmentation_dataset(tmp_path, ["sky"])[0].image


def of_panoptic_data(content, tmp_path):
    rows = {
        "image": [{"bytes": content, "path": None}],
        "panoptic_map": [np.zeros((8, 12, 3), dtype=np.uint8)],
        "segments_info": [[{"id": 1, "category_id": 0}]],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "panoptic_map": datasets.Image(),
            "segments_info": datasets.List({"id": datasets.Value("int64"), "category_id": datasets.Value("int64")}),
        }
    )
    return load_segmentation_dataset(datasets.Dataset.from_dict(rows, features=features), ["sky"])[0].image


def with_captions(content, tmp_path):
    rows = {"image": [{"bytes": content, "path": None}], "caption": ["a street"]}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    return load_captioned_pictures(datasets.Dataset.from_dict(rows, features=features)).read(0).image


def without_annotations(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    (picture,) = open_pictures(tmp_path)
    return as_viewer_shows(picture.read())


READERS = (
    from_path,
    from_bytes,
    from_undecoded_columns,
    by_image_processor,
    in_training_and_evaluation,
    in_folders,
    of_panoptic_data,
    with_captions,
    without_annotations,
)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", VIEWED)
def test_every_reader_sees_what_a_viewer_shows(read, name, tmp_path):
    content, shown = VIEWED[name]
    np.testing.assert_array_equal(np.asarray(read(content, tmp_path)), shown)
