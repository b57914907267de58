"""Opening data sets of every kind, and what is said when that fails."""

from __future__ import annotations

import json
import shutil
import warnings

import datasets
import numpy as np
import pytest

from hf_maskadapter.data import (
    DataError,
    SampleReader,
    SegmentationDataset,
    SegmentationStream,
    load_segmentation_dataset,
)
from hf_maskadapter.data import loading as loading_module
from hf_maskadapter.model.masks import ids_to_colors
from hf_maskadapter.model.vocabulary import Vocabulary
from support.data_samples import encode, labels, picture, save

CLASSES = ["sky", "road", "car"]


def check_three_classes(samples, numbers):
    """Samples show the pictures and label maps of `make_dataset` and `picture_folder`."""
    samples = list(samples)
    assert len(samples) == len(numbers)
    for sample, number in zip(samples, numbers, strict=True):
        truth = sample.label_map()
        expected = np.where(truth == -1, -1, labels(number).astype(int))
        np.testing.assert_array_equal(truth, expected)
        assert (truth == -1).mean() < 0.1


# --- Hugging Face data sets ---


def test_a_data_set_in_memory(make_dataset):
    dataset = load_segmentation_dataset(make_dataset(), CLASSES)
    assert isinstance(dataset, SegmentationDataset)
    assert len(dataset) == 5
    check_three_classes(dataset, range(5))
    assert [sample.sample_id for sample in dataset] == ["s0", "s1", "s2", "s3", "s4"]
    assert dataset.vocabulary.names == ("sky", "road", "car")
    assert not dataset.has_instances


def test_nothing_is_decoded_or_copied_before_a_sample_is_read(make_dataset, monkeypatch):
    source = make_dataset()
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("decoded"))
    dataset = load_segmentation_dataset(source, CLASSES)
    assert dataset.dataset.data.nbytes <= source.data.nbytes
    dataset[3]


def test_a_selection_keeps_the_samples_names(make_dataset):
    nameless = load_segmentation_dataset(make_dataset().remove_columns("id"), CLASSES)
    assert [sample.sample_id for sample in nameless.select([3, 1]).select([1, 0])] == ["1", "3"]
    with pytest.raises(DataError, match="empty"):
        nameless.select([])
    with pytest.raises(IndexError):
        nameless.select([9])


def test_a_stream_has_no_length_and_the_same_samples(make_dataset):
    stream = load_segmentation_dataset(make_dataset().to_iterable_dataset(), CLASSES)
    assert isinstance(stream, SegmentationStream)
    check_three_classes(stream, range(5))
    check_three_classes(stream, range(5))
    with pytest.raises(TypeError):
        len(stream)
    assert [sample.sample_id for sample in stream.shard(2, 1)] == ["s1", "s3"]


def test_a_stream_that_does_not_tell_its_columns():
    def rows():
        for i in range(3):
            yield {"image": picture(i), "annotation": labels(i).tolist()}

    stream = load_segmentation_dataset(datasets.IterableDataset.from_generator(rows), CLASSES)
    check_three_classes(stream, range(3))
    assert len({sample.sample_id for sample in stream}) == 3
    assert [s.sample_id for s in stream] == [s.sample_id for s in stream]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("split", [None, "train"])
def test_a_folder_written_by_save_to_disk(make_dataset, tmp_path, streaming, split):
    if split:
        datasets.DatasetDict(train=make_dataset(4), test=make_dataset(2)).save_to_disk(tmp_path / "saved")
    else:
        make_dataset(4).save_to_disk(tmp_path / "saved")
    dataset = load_segmentation_dataset(tmp_path / "saved", CLASSES, split=split, streaming=streaming)
    assert isinstance(dataset, SegmentationStream if streaming else SegmentationDataset)
    check_three_classes(dataset, range(4))


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_files(make_dataset, tmp_path, streaming):
    (tmp_path / "data").mkdir()
    make_dataset(4).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    dataset = load_segmentation_dataset(tmp_path, CLASSES, streaming=streaming)
    check_three_classes(dataset, range(4))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_single_file(make_dataset, tmp_path, streaming):
    make_dataset(4).to_parquet(tmp_path / "streets.parquet")
    dataset = load_segmentation_dataset(tmp_path / "streets.parquet", CLASSES, streaming=streaming)
    check_three_classes(dataset, range(4))
    (tmp_path / "streets.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"streets.xlsx is not a data set file: expected .parquet"):
        load_segmentation_dataset(tmp_path / "streets.xlsx", CLASSES)


def test_a_data_set_dict_needs_a_split_unless_it_has_only_one(make_dataset):
    both = datasets.DatasetDict(train=make_dataset(4), test=make_dataset(2))
    assert len(load_segmentation_dataset(both, CLASSES, split="test")) == 2
    assert len(load_segmentation_dataset(datasets.DatasetDict(train=make_dataset(4)), CLASSES)) == 4
    with pytest.raises(DataError, match=r"choose a split .*it has: train, test"):
        load_segmentation_dataset(both, CLASSES)
    with pytest.raises(DataError, match=r"no split 'val'.*train, test"):
        load_segmentation_dataset(both, CLASSES, split="val")


def test_hub_data_sets_are_opened_by_name_with_their_own_vocabulary(make_dataset, monkeypatch, tmp_path):
    asked = {}
    vocabulary_file = tmp_path / "vocabulary.json"
    vocabulary_file.write_text(json.dumps(Vocabulary.from_list(CLASSES).to_dict()))

    def load_dataset(name, config_name, **options):
        asked.update(name=name, config_name=config_name, **options)
        return make_dataset()

    def download(name, file, **options):
        assert (name, file, options) == ("me/streets", "vocabulary.json", {"repo_type": "dataset", "revision": "v1"})
        return str(vocabulary_file)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    dataset = load_segmentation_dataset("me/streets", split="train[:5]", config_name="big", revision="v1")
    check_three_classes(dataset, range(5))
    assert asked["name"] == "me/streets"
    assert asked["config_name"] == "big"
    assert asked["split"] == "train[:5]"
    assert asked["revision"] == "v1"
    assert asked["streaming"] is False


def test_a_data_set_that_cannot_be_opened_is_named(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="'me/streets' cannot be opened: ConnectionError: no network"):
        load_segmentation_dataset("me/streets", CLASSES)
    monkeypatch.undo()
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text("")
    with pytest.raises(DataError, match=r"scripted' cannot be opened: RuntimeError: Dataset scripts are no longer"):
        load_segmentation_dataset(tmp_path / "scripted", CLASSES)
    with pytest.raises(DataError, match=r"no folder or file \./nowhere"):
        load_segmentation_dataset("./nowhere", CLASSES)


# --- Columns ---


@pytest.mark.parametrize(("image", "label"), [("pixel_values", "label"), ("img", "annotation"), ("image", "mask")])
def test_usual_column_names_are_found(make_dataset, image, label):
    check_three_classes(load_segmentation_dataset(make_dataset(3, image, label), CLASSES), range(3))


def test_unusual_column_names_can_be_given(make_dataset):
    source = make_dataset(3, "photo", "truth")
    dataset = load_segmentation_dataset(source, CLASSES, image_column="photo", label_column="truth", id_column="id")
    check_three_classes(dataset, range(3))


def test_a_class_label_is_not_taken_for_a_label_map(make_dataset):
    source = make_dataset(3, "image", "mask").add_column("label", [0, 1, 2])
    assert load_segmentation_dataset(source, CLASSES).reader.label_column == "mask"


def test_a_missing_column_is_named_with_those_that_are_there(make_dataset):
    with pytest.raises(DataError, match=r"label maps.*its columns: id, image, truth\. Name the column"):
        load_segmentation_dataset(make_dataset(3, "image", "truth"), CLASSES)
    with pytest.raises(DataError, match=r"no column 'labels' for the label maps.*its columns: id, image, label_map"):
        load_segmentation_dataset(make_dataset(), CLASSES, label_column="labels")
    with pytest.raises(DataError, match=r"pictures.*its columns: id, photo, label_map"):
        load_segmentation_dataset(make_dataset(3, "photo"), CLASSES)
    with pytest.raises(DataError, match="segments_column"):
        load_segmentation_dataset(make_dataset(3, "image", "panoptic_map"), CLASSES)


def test_names_that_occur_twice_identify_nothing(make_dataset):
    source = make_dataset(3).remove_columns("id").add_column("image_id", ["a", "a", "b"])
    assert [sample.sample_id for sample in load_segmentation_dataset(source, CLASSES)] == ["0", "1", "2"]
    with pytest.raises(DataError, match="'image_id' does not identify"):
        load_segmentation_dataset(source, CLASSES, id_column="image_id")


def test_panoptic_columns():
    ids = np.array([[258, 7, 0]])
    segments = [{"id": 258, "category_id": 12}, {"id": 7, "category_id": 11}]
    source = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": encode(picture(0, 3, 1)), "path": None}],
            "panoptic_map": [{"bytes": encode(ids_to_colors(ids)), "path": None}],
            "segments_info": [segments],
        }
    )
    dataset = load_segmentation_dataset(source, CLASSES, label_mapping={11: 0, 12: 2})
    assert dataset.has_instances
    assert dataset[0].label_map().tolist() == [[2, 0, -1]]


# --- Labels and classes ---


def test_reduce_labels_shifts_classes_and_ignores_zero(make_dataset):
    dataset = load_segmentation_dataset(make_dataset(), ["road", "car"], reduce_labels=True)
    for i, sample in enumerate(dataset):
        np.testing.assert_array_equal(sample.label_map(), labels(i).astype(int) - 1)
    with pytest.raises(ValueError, match="not both"):
        load_segmentation_dataset(make_dataset(), CLASSES, reduce_labels=True, label_mapping={0: 0})


def test_label_mapping_and_ignored_values(make_dataset):
    dataset = load_segmentation_dataset(make_dataset(), ["a", "b"], label_mapping={0: 1, 2: 0}, ignore_index=1)
    expected = np.array([1, -1, 0])
    for i, sample in enumerate(dataset):
        np.testing.assert_array_equal(sample.label_map(), expected[labels(i)])


def test_labels_outside_the_vocabulary_are_an_error_or_ignored(make_dataset):
    with pytest.raises(DataError, match="sample 's0': the label map holds 2, outside"):
        load_segmentation_dataset(make_dataset(), CLASSES[:2])[0]
    ignoring = load_segmentation_dataset(make_dataset(), CLASSES[:2], ignore_unlisted=True)
    np.testing.assert_array_equal(ignoring[0].label_map(), np.array([0, 1, -1])[labels(0)])


def test_255_is_ignored_unless_it_is_a_class():
    source = datasets.Dataset.from_dict({"image": [[[[0, 0, 0]] * 2]], "label_map": [[[255, 0]]]})
    few = load_segmentation_dataset(source, CLASSES, image_column="image", label_column="label_map")
    assert few.reader.ignore_values == (255, 65535)
    many = load_segmentation_dataset(
        source, [f"c{i}" for i in range(256)], image_column="image", label_column="label_map"
    )
    assert many.reader.ignore_values == (65535,)


def two_values(tmp_path=None):
    """A picture whose left half is 0 and right half 255."""
    label_map = np.zeros((4, 6), dtype=np.uint8)
    label_map[:, 3:] = 255
    if tmp_path is not None:
        save(tmp_path / "images" / "a.png", picture(0, 6, 4))
        save(tmp_path / "labels" / "a.png", label_map)
        return tmp_path
    row = {"image": {"bytes": encode(picture(0, 6, 4)), "path": None}, "label_map": {"bytes": encode(label_map)}}
    return datasets.Dataset.from_list([row])


LESION_MAP = np.array([[0, 0, 0, 1, 1, 1]] * 4)


@pytest.mark.parametrize(
    ("vocabulary", "options"),
    [
        (["background", "lesion"], {"label_mapping": {0: 0, 255: 1}}),
        (["background", "lesion"], {"label_mapping": {"0": 0, "255": 1}}),
        ({0: "background", 255: "lesion"}, {}),
        ({"0": "background", "255": "lesion"}, {}),
        ({"id2label": {"0": "background", "255": "lesion"}}, {}),
        ([{"name": "background", "dataset_id": 0}, {"name": "lesion", "dataset_id": 255}], {}),
        (Vocabulary.from_dict({0: "background", 255: "lesion"}), {"ignore_index": 7}),
    ],
)
def test_a_value_that_a_mapping_or_the_vocabularys_ids_name_is_a_class_though_ignored_by_default(vocabulary, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (sample,) = load_segmentation_dataset(two_values(), vocabulary, **options)
    np.testing.assert_array_equal(sample.label_map(), LESION_MAP)


@pytest.mark.parametrize("content", [{"0": "background", "255": "lesion"}, {"id2label": {"255": "lesion", "0": "bg"}}])
def test_a_file_of_classes_may_name_255(content, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    (sample,) = load_segmentation_dataset(two_values(tmp_path))
    np.testing.assert_array_equal(sample.label_map(), LESION_MAP)


def test_255_classes_counted_from_one_are_all_classes():
    label_map = np.array([[0, 1, 254, 255]], dtype=np.uint8)
    row = {"image": {"bytes": encode(picture(0, 4, 1)), "path": None}, "label_map": {"bytes": encode(label_map)}}
    names = [f"class {number}" for number in range(255)]
    (sample,) = load_segmentation_dataset(datasets.Dataset.from_list([row]), names, reduce_labels=True)
    assert sample.label_map().tolist() == [[-1, 0, 253, 254]]


def test_two_classes_whose_second_seems_to_be_255_get_a_hint_once():
    two = datasets.concatenate_datasets([two_values(), two_values()])
    with pytest.warns(UserWarning, match=r"sample '0'.*label_mapping=\{0: 0, 255: 1\}") as caught:
        samples = list(load_segmentation_dataset(two, ["background", "lesion"]))
    assert len(caught) == 1
    np.testing.assert_array_equal(samples[1].label_map(), np.where(LESION_MAP, -1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(load_segmentation_dataset(two, ["background", "lesion"], ignore_index=255))
        list(load_segmentation_dataset(two, ["background", "road", "lesion"]))
    with pytest.raises(DataError, match="Is 255 the second class"):
        list(load_segmentation_dataset(two, ["background", "lesion"], ignore_index=7))


def test_a_value_cannot_be_a_class_and_ignored():
    for vocabulary, options in ((["a", "b"], {"label_mapping": {0: 0, 255: 1}}), ({0: "a", 255: "b"}, {})):
        with pytest.raises(ValueError, match=r"255 is ignored, but .* class 1: leave one of the two out"):
            load_segmentation_dataset(two_values(), vocabulary, ignore_index=255, **options)


def test_ids_of_a_vocabulary_that_the_data_set_contradicts_are_refused(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"0": "background", "255": "lesion"}))
    source = two_values(tmp_path)
    same = load_segmentation_dataset(source, {0: "background", 255: "lesion"})
    np.testing.assert_array_equal(same[0].label_map(), LESION_MAP)
    with pytest.raises(DataError, match="gives class 'lesion' the id 1, which the data set does not"):
        load_segmentation_dataset(source, {0: "background", 1: "lesion"})


def test_ids_of_a_built_in_label_set_are_not_those_of_a_map():
    label_map = np.array([[0, 18]], dtype=np.uint8)  # cityscapes_19 numbers its classes 7 to 33
    row = {"image": {"bytes": encode(picture(0, 2, 1)), "path": None}, "label_map": {"bytes": encode(label_map)}}
    source = datasets.Dataset.from_list([row])
    for vocabulary in ("cityscapes_19", Vocabulary.from_label_set("cityscapes_19")):
        assert load_segmentation_dataset(source, vocabulary)[0].label_map().tolist() == [[0, 18]]


def test_ids_beyond_16_bits_and_negative_ones_are_mapped():
    label_map = np.array([[70_000, -5, 3, 1_000_000]], dtype=np.int32)
    row = {"image": {"bytes": encode(picture(0, 4, 1)), "path": None}, "label_map": label_map}
    reader = SampleReader(
        Vocabulary.from_list(CLASSES),
        label_column="label_map",
        label_mapping={70_000: 1, -5: 2, 3: 0},
        ignore_values=(1_000_000,),
    )
    assert reader(row, 0).label_map().tolist() == [[1, 2, 0, -1]]


def test_a_data_set_without_classes_needs_a_vocabulary(make_dataset):
    with pytest.raises(DataError, match="does not tell its classes: give the vocabulary"):
        load_segmentation_dataset(make_dataset())


def test_an_empty_data_set_is_refused(make_dataset):
    with pytest.raises(DataError, match="empty"):
        load_segmentation_dataset(make_dataset().select([]), CLASSES)


# --- Folders ---


def test_folders_for_each_split_with_a_file_of_classes(picture_folder):
    train = load_segmentation_dataset(picture_folder, split="train")
    assert train.vocabulary.names == ("sky", "road", "car")
    check_three_classes(train, range(4))
    assert [sample.sample_id for sample in train] == ["p0", "p1", "p2", "p3"]
    assert (train[0].segmentation[0, 0], train[0].file_name) == (0, str(picture_folder / "train/images/p0.jpg"))
    assert len(load_segmentation_dataset(picture_folder, split="validation")) == 2
    stream = load_segmentation_dataset(picture_folder, split="train", streaming=True)
    assert [sample.sample_id for sample in stream] == [sample.sample_id for sample in train]


def test_folders_with_splits_inside_and_subfolders(tmp_path):
    for i in range(3):
        save(tmp_path / "images" / "training" / "city" / f"{i}.png", picture(i))
        save(tmp_path / "labels" / "training" / "city" / f"{i}.png", labels(i))
        save(tmp_path / "images" / "test" / f"{i}.png", picture(i))
        save(tmp_path / "labels" / "test" / f"{i}.png", labels(i))
    dataset = load_segmentation_dataset(tmp_path, CLASSES, split="train")
    check_three_classes(dataset, range(3))
    assert dataset[1].sample_id == "city/1"
    with pytest.raises(DataError, match="has the splits test, training: choose one"):
        load_segmentation_dataset(tmp_path, CLASSES)
    with pytest.raises(DataError, match="no split 'val'; found: test, training"):
        load_segmentation_dataset(tmp_path, CLASSES, split="val")


def test_folders_without_splits(tmp_path):
    for i in range(2):
        save(tmp_path / "images" / f"{i}.png", picture(i))
        save(tmp_path / "label_maps" / f"{i}.png", labels(i))
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    check_three_classes(load_segmentation_dataset(tmp_path), range(2))
    check_three_classes(load_segmentation_dataset(tmp_path, split="train"), range(2))
    with pytest.raises(DataError, match="no split 'val'; found: no splits"):
        load_segmentation_dataset(tmp_path, split="val")


@pytest.mark.parametrize(("ignored", "values"), [(1, {1}), ("1", {1}), ([0, "1"], {0, 1})])
def test_values_that_a_folder_says_are_ignored(ignored, values, tmp_path):
    save(tmp_path / "images" / "0.png", picture(0))
    save(tmp_path / "labels" / "0.png", labels(0))
    content = {"id2label": {"0": "sky", "1": "road", "2": "car"}, "ignore_index": ignored}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    truth = load_segmentation_dataset(tmp_path)[0].label_map()
    assert set(np.unique(labels(0)[truth == -1])) & {0, 1, 2} == values


def test_ids_in_a_vocabulary_json_are_refused_as_its_values_are_places(tmp_path):
    save(tmp_path / "images" / "0.png", picture(0))
    save(tmp_path / "labels" / "0.png", labels(0))
    (tmp_path / "vocabulary.json").write_text(json.dumps({"2": "sky", "0": "road", "1": "car"}))
    with pytest.raises(DataError, match=r"vocabulary\.json gives its classes ids.*name the file classes\.json"):
        load_segmentation_dataset(tmp_path)
    (tmp_path / "vocabulary.json").rename(tmp_path / "classes.json")
    dataset = load_segmentation_dataset(tmp_path)
    named = np.array(dataset.vocabulary.names)[dataset[0].label_map()]
    assert np.array_equal(named, np.array(["road", "car", "sky"])[labels(0)])


def test_ignored_values_that_are_no_numbers_are_an_error(tmp_path):
    save(tmp_path / "images" / "0.png", picture(0))
    save(tmp_path / "labels" / "0.png", labels(0))
    (tmp_path / "classes.json").write_text(json.dumps({"id2label": {"0": "sky"}, "ignore_index": "void"}))
    with pytest.raises(DataError, match=r"classes\.json: ignore_index must be a whole number or a list of them"):
        load_segmentation_dataset(tmp_path)


def test_pictures_and_label_maps_must_belong_together(picture_folder):
    (picture_folder / "train" / "annotations" / "p2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 pictures in .* have no label map .* for example 'p2'"):
        load_segmentation_dataset(picture_folder, split="train")
    (picture_folder / "train" / "images" / "p2.jpg").unlink()
    (picture_folder / "train" / "images" / "p3.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 label maps in .* have no picture .* for example 'p3'"):
        load_segmentation_dataset(picture_folder, split="train")
    save(picture_folder / "train" / "images" / "p0.png", picture(0))
    with pytest.raises(DataError, match="the same name but for the suffix"):
        load_segmentation_dataset(picture_folder, split="train")


def test_folders_without_pictures_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        load_segmentation_dataset(tmp_path, CLASSES)
    (tmp_path / "labels").rmdir()
    with pytest.raises(DataError, match="found neither images"):
        load_segmentation_dataset(tmp_path, CLASSES, layout="folder")


def test_a_vocabulary_must_fit_the_data_sets_own_classes(picture_folder):
    synonyms = load_segmentation_dataset(picture_folder, ["sky, heaven", "street, road", "auto"], split="train")
    assert synonyms.vocabulary.synonyms[0] == ("sky", "heaven")
    check_three_classes(synonyms, range(4))
    with pytest.raises(DataError, match="has 3 classes, but the vocabulary has 2"):
        load_segmentation_dataset(picture_folder, ["sky", "road"], split="train")
    with pytest.raises(DataError, match="another order: class 0 is 'road', but 'sky'"):
        load_segmentation_dataset(picture_folder, ["road", "sky", "car"], split="train")
    other = load_segmentation_dataset(
        picture_folder, ["street", "rest"], split="train", label_mapping={20: 0, 10: 1, 30: 1}
    )
    np.testing.assert_array_equal(other[0].label_map()[1:], np.array([1, 0, 1])[labels(0)][1:])


def test_an_unreadable_picture_in_the_middle_names_its_file(picture_folder):
    broken = picture_folder / "train" / "images" / "p1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    dataset = load_segmentation_dataset(picture_folder, split="train")
    dataset[0]
    with pytest.raises(DataError, match=f"split 'train', sample 'p1' \\({broken}\\): the picture cannot be read"):
        list(dataset)


def test_camvid(shared):
    folder = shared / "data" / "camvid"
    train, val = (load_segmentation_dataset(folder, split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    assert train.vocabulary.num_classes == 11
    sample = train[0]
    assert sample.size == (360, 480)
    assert sample.label_map().min() == -1
    assert sample.label_map().max() <= 10


# --- COCO ---


@pytest.mark.parametrize("split", ["train", "train2017"])
def test_coco_panoptic_as_downloaded(coco_root, split):
    dataset = load_segmentation_dataset(coco_root, split=split)
    assert dataset.vocabulary.names == ("person", "car", "grass-merged")
    assert dataset.vocabulary.stuff_ids == (2,)
    assert [sample.sample_id for sample in dataset] == ["9", "25"]
    sample = dataset[1]
    assert [(s.category_id, s.isthing, s.iscrowd) for s in sample.segments_info] == [
        (2, False, False),
        (0, True, False),
        (0, True, True),
    ]
    assert sample.segmentation[0, 0] == 1
    assert sample.segmentation[6, 0] == 2
    assert sample.segmentation[6, 9] == 0
    np.testing.assert_array_equal(np.asarray(sample.image).shape, (12, 16, 3))


def test_coco_panoptic_with_its_pngs_beside_the_pictures(coco_root):
    for split in ("train2017", "val2017"):
        shutil.move(coco_root / "annotations" / f"panoptic_{split}", coco_root / f"panoptic_{split}")
    assert len(load_segmentation_dataset(coco_root, split="val")) == 1


def test_a_panoptic_file_of_coco_form_anywhere(coco_root):
    source = coco_root / "annotations" / "panoptic_val2017.json"
    dataset = load_segmentation_dataset(source, image_folder=coco_root / "val2017")
    assert dataset[0].sample_id == "30"
    with pytest.raises(DataError, match=r"folder with its pictures is not there.*image_folder"):
        load_segmentation_dataset(source)
    with pytest.raises(DataError, match=r"panoptic PNGs is not there.*elsewhere"):
        load_segmentation_dataset(source, image_folder=coco_root / "val2017", panoptic_folder=coco_root / "elsewhere")


def test_coco_panoptic_says_what_is_missing(coco_root):
    with pytest.raises(DataError, match="choose it"):
        load_segmentation_dataset(coco_root)
    with pytest.raises(DataError, match=r"no panoptic_.*for the split 'test'; found: train2017, val2017"):
        load_segmentation_dataset(coco_root, split="test")
    shutil.rmtree(coco_root / "val2017")
    with pytest.raises(DataError, match="folder with its pictures is not there"):
        load_segmentation_dataset(coco_root, split="val")
    path = coco_root / "annotations" / "panoptic_train2017.json"
    path.write_text(json.dumps({"images": [], "annotations": [{"image_id": 1, "bbox": []}], "categories": []}))
    with pytest.raises(DataError, match="not a panoptic annotation file of COCO's form"):
        load_segmentation_dataset(coco_root, split="train")
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        load_segmentation_dataset(coco_root, split="train")


def test_a_missing_png_of_coco_names_the_sample(coco_root):
    path = coco_root / "annotations" / "panoptic_train2017" / f"{25:012d}.png"
    path.unlink()
    dataset = load_segmentation_dataset(coco_root, split="train")
    with pytest.raises(DataError, match=r"sample '25'.* the panoptic map cannot be read"):
        dataset[1]


def test_coco_stuff_as_downloaded(tmp_path):
    for i in range(2):
        save(tmp_path / "train2017" / f"{i:012d}.jpg", picture(i))
        values = np.array([0, 181, 255], np.uint8)[labels(i)]
        save(tmp_path / "stuffthingmaps" / "train2017" / f"{i:012d}.png", values)
    dataset = load_segmentation_dataset(tmp_path, split="train")
    assert dataset.vocabulary == Vocabulary.from_label_set("coco_stuff_171")
    for i, sample in enumerate(dataset):
        np.testing.assert_array_equal(sample.label_map(), np.array([0, 170, -1])[labels(i)])
    with pytest.raises(DataError, match="no label maps of the split 'val' in stuffthingmaps/"):
        load_segmentation_dataset(tmp_path, split="val")


def test_a_root_with_both_annotations_of_coco_must_be_told_which(coco_root):
    save(coco_root / "stuffthingmaps" / "val2017" / f"{30:012d}.png", labels(0) * 0)
    with pytest.raises(DataError, match="layout='coco_panoptic' or layout='coco_stuff'"):
        load_segmentation_dataset(coco_root, split="val")
    assert load_segmentation_dataset(coco_root, split="val", layout="coco_panoptic").has_instances
    assert not load_segmentation_dataset(coco_root, split="val", layout="coco_stuff").has_instances


def test_an_unknown_layout_is_refused(coco_root):
    with pytest.raises(ValueError, match="layout='voc'"):
        load_segmentation_dataset(coco_root, layout="voc")


def test_real_coco_samples(shared):
    folder = shared / "data" / "coco_panoptic_sample"
    dataset = load_segmentation_dataset(folder / "panoptic_examples.json", image_folder=folder / "input_images")
    official = Vocabulary.from_label_set("coco_panoptic_133")
    assert dataset.vocabulary.names == official.names
    assert dataset.vocabulary.thing_ids == official.thing_ids
    assert [sample.size for sample in dataset] == [(427, 640), (360, 640)]


def test_public_names_are_those_of_the_module():
    assert set(loading_module.__all__) <= set(vars(loading_module))


def test_a_mapping_leads_from_numbers_to_numbers():
    with pytest.raises(ValueError, match=r"label_mapping must lead from .* got 'lesion'"):
        load_segmentation_dataset(two_values(), ["background", "lesion"], label_mapping={0: 0, 255: "lesion"})


def test_two_classes_of_one_number_are_refused():
    with pytest.raises(ValueError, match="the same dataset_id, 255: lesion, scar"):
        load_segmentation_dataset(
            two_values(), [{"name": "lesion", "dataset_id": 255}, {"name": "scar", "dataset_id": 255}]
        )
