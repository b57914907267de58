"""The sample format: decoding, checks and their messages."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from hf_maskadapter.data import DataError, SampleReader, dataset_id_mapping
from hf_maskadapter.model.masks import colors_to_ids, ids_to_colors
from hf_maskadapter.model.vocabulary import Vocabulary
from support.data_samples import encode, labels, picture, save

THREE = Vocabulary.from_list(["sky", "road", "car"], things=["car"])


def label_row(label_map, image=None, **others):
    image = picture() if image is None else image
    return {"image": {"bytes": encode(image), "path": "a/street.png"}, "label_map": label_map, **others}


def label_reader(**options):
    return SampleReader(**{"vocabulary": THREE, "label_column": "label_map", "name": "streets", **options})


def panoptic_row(ids, segments, image=None):
    image = picture(0, ids.shape[1], ids.shape[0]) if image is None else image
    return {
        "image": {"bytes": encode(image), "path": "a/street.png"},
        "panoptic_map": {"bytes": encode(ids_to_colors(ids)), "path": None},
        "segments_info": segments,
    }


def panoptic_reader(**options):
    return SampleReader(
        **{"vocabulary": THREE, "panoptic_column": "panoptic_map", "segments_column": "segments_info", **options}
    )


@given(npst.arrays(np.int64, npst.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 2**24 - 1)))
def test_segment_numbers_survive_their_colors(ids):
    np.testing.assert_array_equal(colors_to_ids(ids_to_colors(ids)), ids)


def test_segment_numbers_beyond_24_bits_are_refused():
    with pytest.raises(ValueError, match="16777216"):
        ids_to_colors(np.array([1 << 24]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_label_maps_of_8_16_and_32_bits_give_the_same_sample(dtype):
    truth = labels(3)
    kind = "TIFF" if dtype == np.int32 else "PNG"
    sample = label_reader()(label_row({"bytes": encode(truth.astype(dtype), kind), "path": None}), 4)
    np.testing.assert_array_equal(sample.label_map(), truth)
    assert sample.segmentation.dtype == np.int32
    assert [segment.category_id for segment in sample.segments_info] == np.unique(truth).tolist()
    assert [segment.isthing for segment in sample.segments_info] == [False, False, True]
    assert not sample.has_instances
    assert sample.sample_id == "4"
    assert sample.size == (12, 16)


def test_palette_label_maps_are_read_as_indices():
    truth = labels(1)
    indexed = Image.new("P", (16, 12))
    indexed.putdata(truth.ravel().tolist())
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [0] * 759)
    sample = label_reader()(label_row({"bytes": encode(indexed), "path": None}))
    np.testing.assert_array_equal(sample.label_map(), truth)


def test_gray_label_maps_stored_in_three_channels_are_read():
    truth = labels(1)
    sample = label_reader()(label_row(np.stack([truth] * 3, axis=-1)))
    np.testing.assert_array_equal(sample.label_map(), truth)


def test_ignored_pixels_belong_to_no_segment():
    truth = labels(2)
    truth[:2] = 255
    sample = label_reader(ignore_values=(255,))(label_row(truth))
    assert (sample.segmentation[:2] == 0).all()
    assert (sample.segmentation[2:] > 0).all()
    assert (sample.label_map()[:2] == -1).all()
    assert (sample.label_map(ignore_index=255)[:2] == 255).all()


def test_ignored_values_outside_16_bits_are_recognized():
    truth = labels(2).astype(np.int32)
    truth[0, 0], truth[0, 1] = -1, 70000
    sample = label_reader(ignore_values=(-1, 70000))(label_row(truth))
    assert sample.segmentation[0, :2].tolist() == [0, 0]
    assert (sample.segmentation[1:] > 0).all()


def test_more_than_255_classes():
    vocabulary = Vocabulary.from_list([f"class {i}" for i in range(300)])
    truth = np.full((12, 16), 299, dtype=np.uint16)
    truth[0] = 65535
    row = label_row({"bytes": encode(truth), "path": None})
    sample = label_reader(vocabulary=vocabulary, ignore_values=(65535,))(row)
    assert sample.label_map()[1, 0] == 299
    assert sample.label_map()[0, 0] == -1


def test_label_mapping_turns_values_into_class_indices():
    sample = label_reader(label_mapping={7: 2, 9: 0})(label_row(np.array([[7, 9]], np.uint8), picture(0, 2, 1)))
    assert sample.label_map().tolist() == [[2, 0]]


def test_dataset_ids_of_a_label_set_map_to_its_indices():
    vocabulary = Vocabulary.from_label_set("coco_stuff_171")
    mapping = dataset_id_mapping(vocabulary, offset=-1)
    assert mapping[0] == 0
    assert mapping[181] == 170
    assert len(mapping) == 171
    with pytest.raises(ValueError, match="dataset_id"):
        dataset_id_mapping(THREE)


def test_label_outside_the_vocabulary_names_sample_and_values():
    truth = labels()
    truth[0, :2] = 17, 200
    with pytest.raises(DataError, match=r"streets, sample '3' \(a/street.png\): the label map holds 17, 200, outside"):
        label_reader()(label_row(truth), 3)


def test_labels_outside_the_vocabulary_can_be_ignored():
    truth = labels().astype(np.int32)
    truth[0, :3] = 17, -5, 99999
    sample = label_reader(ignore_unlisted=True)(label_row(truth))
    assert sample.segmentation[0, :3].tolist() == [0, 0, 0]


def test_picture_and_label_map_of_different_sizes_are_refused():
    with pytest.raises(DataError, match=r"sample '0' .*picture is 16×12 pixels, but its label map 12×16"):
        label_reader()(label_row(labels(0, 12, 16)), 0)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
@pytest.mark.parametrize("column", ["image", "label_map"])
def test_unreadable_files_name_the_sample(damage, column):
    row = label_row({"bytes": encode(labels()), "path": None})
    whole = encode(picture(0, 16, 12), "JPEG")
    broken = {"truncated": whole[: len(whole) // 2], "garbage": b"no picture at all", "empty": b""}[damage]
    row[column] = {"bytes": broken, "path": "a/street.png"}
    what = "picture" if column == "image" else "label map"
    with pytest.raises(DataError, match=f"streets, sample 's7'.* the {what} cannot be read"):
        label_reader(id_column="name")({**row, "name": "s7"})


def test_missing_files_and_values_name_the_sample():
    with pytest.raises(DataError, match=r"nowhere.png\): the picture cannot be read \(FileNotFoundError"):
        label_reader()({"image": {"bytes": None, "path": "/tmp/nowhere.png"}, "label_map": labels()}, 0)
    with pytest.raises(DataError, match=r"sample '0'.*there is no label map"):
        label_reader()(label_row(None), 0)


def test_colored_label_maps_are_refused_with_advice():
    with pytest.raises(DataError, match=r"one channel.*panoptic"):
        label_reader()(label_row({"bytes": encode(picture(5)), "path": None}), 0)


def test_pictures_come_in_any_form(tmp_path):
    image = picture(8)
    path = save(tmp_path / "p.png", image)
    forms = [image, np.asarray(image), encode(image), str(path), {"bytes": None, "path": str(path)}]
    for form in forms:
        sample = label_reader()({"image": form, "label_map": labels()})
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "1", "P"])
def test_pictures_of_every_mode_become_rgb(mode):
    sample = label_reader()({"image": picture().convert(mode), "label_map": labels()})
    assert sample.image.mode == "RGB"


@pytest.mark.parametrize("annotated_as", ["shown", "stored"])
def test_exif_orientation_is_applied_unless_the_annotation_fits_the_stored_picture(annotated_as):
    stored = picture(0, 16, 12)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn, so 12×16
    buffer = io.BytesIO()
    stored.save(buffer, format="PNG", exif=exif)
    truth = labels(0, 12, 16) if annotated_as == "shown" else labels(0, 16, 12)
    sample = label_reader()({"image": buffer.getvalue(), "label_map": truth})
    assert sample.size == truth.shape
    expected = stored.transpose(Image.Transpose.ROTATE_270) if annotated_as == "shown" else stored
    np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(expected))


SEGMENTS = [
    {"id": 70000, "category_id": 2, "iscrowd": 0},
    {"id": 5, "category_id": 0, "iscrowd": 0},
    {"id": 300, "category_id": 2, "iscrowd": 1},
    {"id": 999, "category_id": 1, "iscrowd": 0},
]


def test_panoptic_maps_are_renumbered_in_the_order_of_segments_info():
    ids = np.array([[70000, 5, 0], [300, 300, 5]])
    sample = panoptic_reader()(panoptic_row(ids, SEGMENTS))
    assert sample.segmentation.tolist() == [[1, 2, 0], [3, 3, 2]]
    assert [(s.id, s.category_id, s.isthing, s.iscrowd) for s in sample.segments_info] == [
        (1, 2, True, False),
        (2, 0, False, False),
        (3, 2, True, True),
    ]  # the fourth segment has no pixel
    assert sample.label_map().tolist() == [[2, 0, -1], [2, 2, 0]]
    assert sample.has_instances


def test_panoptic_maps_may_hold_the_numbers_themselves():
    ids = np.array([[70000, 5, 0], [300, 300, 5]])
    row = {**panoptic_row(ids, SEGMENTS), "panoptic_map": ids.astype(np.int32)}
    expected = panoptic_reader()(panoptic_row(ids, SEGMENTS))
    np.testing.assert_array_equal(panoptic_reader()(row).segmentation, expected.segmentation)


def test_segments_info_may_be_a_dict_of_lists():
    ids = np.array([[70000, 5, 0], [300, 300, 5]])
    lists = {key: [segment[key] for segment in SEGMENTS] for key in SEGMENTS[0]}
    assert (
        panoptic_reader()(panoptic_row(ids, lists)).segments_info
        == panoptic_reader()(panoptic_row(ids, SEGMENTS)).segments_info
    )


def test_thing_flags_come_from_the_data_where_the_vocabulary_has_none():
    vocabulary = Vocabulary.from_list(["a", "b"])
    segments = [{"id": 1, "category_id": 0, "isthing": 0}, {"id": 2, "category_id": 1}]
    sample = panoptic_reader(vocabulary=vocabulary)(panoptic_row(np.array([[1, 2]]), segments))
    assert [segment.isthing for segment in sample.segments_info] == [False, True]


@given(
    npst.arrays(np.int64, (5, 7), elements=st.sampled_from([0, 1, 255, 256, 65536, 2**24 - 1])),
    st.permutations([1, 255, 256, 65536, 2**24 - 1]),
)
def test_panoptic_segments_keep_their_pixels(ids, order):
    segments = [{"id": number, "category_id": number % 3} for number in order]
    sample = panoptic_reader()(panoptic_row(ids, segments))
    present = [number for number in order if (ids == number).any()]
    assert [segment.category_id for segment in sample.segments_info] == [number % 3 for number in present]
    for segment, number in zip(sample.segments_info, present, strict=True):
        np.testing.assert_array_equal(sample.segmentation == segment.id, ids == number)
    np.testing.assert_array_equal(sample.segmentation == 0, ids == 0)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([{"id": 1, "category_id": 0}], "segments that segments_info does not list: 2.*belong to the same picture"),
        ([{"id": 1, "category_id": 0}, {"id": 1, "category_id": 1}], "lists the segment id 1 twice"),
        ([{"id": 1, "category_id": 0}, {"id": 0, "category_id": 1}], "lists the segment id 0; ids begin at 1"),
        ([{"id": 1, "category_id": 0}, {"id": 2, "category_id": 3}], "segment 2 has category_id 3, outside"),
        ([{"id": 1}, {"id": 2, "category_id": 0}], "lacks category_id"),
        ([{"id": 1, "category_id": "person"}, {"id": 2, "category_id": 0}], "category_id of a segment must be a whole"),
        ([{"id": "first", "category_id": 0}, {"id": 2, "category_id": 0}], "id of a segment must be a whole"),
        ("[]", "must be a list"),
        (None, "must be a list"),
    ],
)
def test_wrong_segments_info_names_the_sample(segments, message):
    with pytest.raises(DataError, match=f"sample '5'.*{message}"):
        panoptic_reader()(panoptic_row(np.array([[1, 2]]), segments), 5)


def test_segments_of_ignored_categories_become_void():
    segments = [{"id": 1, "category_id": 0}, {"id": 2, "category_id": 77}]
    sample = panoptic_reader(ignore_unlisted=True)(panoptic_row(np.array([[1, 2]]), segments))
    assert sample.segmentation.tolist() == [[1, 0]]
    assert len(sample.segments_info) == 1


def test_a_sample_without_name_or_number_is_known_by_its_picture():
    first, again, other = (label_reader()(label_row(labels(), picture(seed))).sample_id for seed in (1, 1, 2))
    assert first == again != other


def test_a_reader_wants_one_kind_of_annotation_and_classes_that_exist():
    with pytest.raises(ValueError, match="either"):
        SampleReader(THREE)
    with pytest.raises(ValueError, match="segments_column"):
        SampleReader(THREE, panoptic_column="panoptic_map")
    with pytest.raises(ValueError, match="class 3, but the vocabulary has 3 classes"):
        label_reader(label_mapping={0: 3})


def test_a_used_reader_can_be_sent_to_a_worker():
    reader = label_reader()
    first = reader(label_row(labels()))
    again = pickle.loads(pickle.dumps(reader))(label_row(labels()))
    np.testing.assert_array_equal(first.segmentation, again.segmentation)


def test_real_coco_samples_have_the_areas_that_their_file_tells(shared):
    folder = shared / "data" / "coco_panoptic_sample"
    content = json.loads((folder / "panoptic_examples.json").read_text())
    vocabulary = Vocabulary.from_label_set("coco_panoptic_133")
    mapping = dataset_id_mapping(vocabulary)
    reader = panoptic_reader(vocabulary=vocabulary, label_mapping=mapping)
    for annotation in content["annotations"]:
        name = annotation["file_name"]
        row = {
            "image": str(folder / "input_images" / name.replace(".png", ".jpg")),
            "panoptic_map": str(folder / "panoptic_examples" / name),
            "segments_info": annotation["segments_info"],
        }
        sample = reader(row)
        areas = np.bincount(sample.segmentation.ravel())[1:]
        assert areas.tolist() == [segment["area"] for segment in annotation["segments_info"]]
        assert [s.category_id for s in sample.segments_info] == [
            mapping[segment["category_id"]] for segment in annotation["segments_info"]
        ]
        assert sum(segment.iscrowd for segment in sample.segments_info) >= 1


@pytest.mark.parametrize("key", ["id", "category_id"])
def test_numbers_of_segments_are_not_cut_to_whole_ones(key):
    segment = {"id": 1, "category_id": 1} | {key: 1.7}
    with pytest.raises(DataError, match=rf"the {key} of a segment must be a whole number, got 1.7"):
        panoptic_reader()(panoptic_row(np.ones((4, 6), dtype=np.int64), [segment]), 0)
