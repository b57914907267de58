"""Raw benchmark downloads become data sets: on small imitations of each layout, and on real COCO samples."""

from __future__ import annotations

import json
import os
import shutil

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from scipy.io import savemat

from hf_maskadapter.data import RAW_LAYOUTS, DataError, load_segmentation_dataset, prepare_dataset
from hf_maskadapter.model.masks import decode_run_lengths
from hf_maskadapter.model.vocabulary import Vocabulary
from support.data_samples import labels, picture, save


def prepare(layout, source, tmp_path, **options):
    """Prepare a data set and open its splits; returns them by name."""
    output = tmp_path / "prepared"
    counts = prepare_dataset(layout, source, output, progress=False, **options)
    opened = {split: load_segmentation_dataset(output, split=split) for split in counts}
    assert {split: len(dataset) for split, dataset in opened.items()} == counts
    for dataset in opened.values():
        assert dataset.vocabulary == RAW_LAYOUTS[layout].vocabulary
    return opened


def check(dataset, names, truths):
    """The data set holds the samples, with label maps (-1: ignored), and the original pictures."""
    assert [sample.sample_id for sample in dataset] == names
    for number, (sample, truth) in enumerate(zip(dataset, truths, strict=True)):
        np.testing.assert_array_equal(sample.label_map(), truth)
        mean_difference = np.abs(np.asarray(sample.image).astype(int) - np.asarray(picture(number))).mean()
        assert mean_difference < 60  # saved as JPEG, noise loses much, but another picture would differ by 85


def encode_rle(mask):
    """Uncompressed run-length encoding: runs down the columns, beginning with background."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [1 - int(mask.T.ravel()[-1])]])
    ends = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], ends])).tolist()}


# --- The layouts ---


def test_coco_panoptic(coco_root, tmp_path):
    opened = prepare("coco_panoptic_133", coco_root, tmp_path)
    assert [len(opened[split]) for split in ("train", "validation")] == [2, 1]
    index = {entry.dataset_id: i for i, entry in enumerate(Vocabulary.from_label_set("coco_panoptic_133"))}
    for sample in opened["train"]:
        assert [(s.category_id, s.isthing, s.iscrowd) for s in sample.segments_info] == [
            (index[193], False, False),
            (index[1], True, False),
            (index[1], True, True),
        ]
        assert (sample.segmentation[:6] == 1).all()
        assert (sample.segmentation[6:, 8:12] == 0).all()
    assert opened["train"].has_instances


def test_real_coco_samples_are_the_same_as_read_directly(shared, tmp_path):
    sample_folder = shared / "data" / "coco_panoptic_sample"
    root = tmp_path / "coco"
    shutil.copytree(sample_folder / "input_images", root / "val2017")
    shutil.copytree(sample_folder / "panoptic_examples", root / "annotations" / "panoptic_val2017")
    shutil.copy(sample_folder / "panoptic_examples.json", root / "annotations" / "panoptic_val2017.json")
    opened = prepare("coco_panoptic_133", root, tmp_path)
    assert list(opened) == ["validation"]
    direct = load_segmentation_dataset(
        sample_folder / "panoptic_examples.json", image_folder=sample_folder / "input_images"
    )
    for first, second in zip(direct, opened["validation"], strict=True):
        assert first.sample_id == second.sample_id
        assert first.segments_info == second.segments_info
        np.testing.assert_array_equal(first.segmentation, second.segmentation)
        np.testing.assert_array_equal(np.asarray(first.image), np.asarray(second.image))


def test_coco_stuff(tmp_path):
    for i in range(2):
        save(tmp_path / "coco" / "val2017" / f"{i:012d}.jpg", picture(i))
        values = np.array([0, 181, 255], np.uint8)[labels(i)]
        save(tmp_path / "coco" / "stuffthingmaps" / "val2017" / f"{i:012d}.png", values)
    opened = prepare("coco_stuff_171", tmp_path / "coco", tmp_path)
    truths = [np.array([0, 170, -1])[labels(i)] for i in range(2)]
    check(opened["validation"], [f"{i:012d}" for i in range(2)], truths)


def make_ade20k(root):
    for split, name in (("training", "ADE_train_0000000{}"), ("validation", "ADE_val_0000000{}")):
        for i in range(2):
            save(root / "images" / split / f"{name.format(i)}.jpg", picture(i))
            values = np.array([0, 1, 150], np.uint8)[labels(i)]
            save(root / "annotations" / split / f"{name.format(i)}.png", values)


def test_ade20k_scene_parsing(tmp_path):
    make_ade20k(tmp_path / "ade")
    opened = prepare("ade20k_150", tmp_path / "ade", tmp_path)
    truths = [np.array([-1, 0, 149])[labels(i)] for i in range(2)]
    check(opened["train"], ["ADE_train_00000000", "ADE_train_00000001"], truths)
    check(opened["validation"], ["ADE_val_00000000", "ADE_val_00000001"], truths)


def test_annotations_of_another_data_set_are_noticed_and_the_file_is_named(tmp_path):
    make_ade20k(tmp_path / "ade")
    wrong = tmp_path / "ade" / "annotations" / "training" / "ADE_train_00000001.png"
    save(wrong, np.array([0, 1, 171], np.uint8)[labels(1)])
    with pytest.raises(DataError, match=r"ADE_train_00000001\.png: the value 171 is neither a class of ade20k_150"):
        prepare("ade20k_150", tmp_path / "ade", tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_ade20k_panoptic(tmp_path):
    make_ade20k(tmp_path / "ade")
    for split, name in (("training", "ADE_train_0000000{}"), ("validation", "ADE_val_0000000{}")):
        for i in range(2):
            instances = np.zeros((12, 16, 3), np.uint8)
            instances[:2, :4] = (1, 1, 0)  # instance class 1 is SceneParsing class 8, the bed: index 7
            instances[:2, 8:] = (1, 2, 0)
            instances[10:, :] = (4, 3, 9)  # class 13, the person: index 12
            save(tmp_path / "ade" / "annotations_instance" / split / f"{name.format(i)}.png", instances)
    sample = prepare("ade20k_150_panoptic", tmp_path / "ade", tmp_path)["train"][0]
    wall, bed, person, flag = 0, 7, 12, 149
    expected = np.array([-1, wall, -1])[labels(0)]  # a flag without an instance has no segment
    assert (labels(0) == 2).any()
    assert flag not in [segment.category_id for segment in sample.segments_info]
    expected[:2, :4] = expected[:2, 8:] = bed
    expected[10:] = person
    np.testing.assert_array_equal(sample.label_map(), expected)
    things = [(s.category_id, s.isthing) for s in sample.segments_info if s.category_id != wall]
    assert things == [(bed, True), (bed, True), (person, True)]
    assert sample.segmentation[0, 0] != sample.segmentation[0, 8]


@pytest.mark.parametrize("folder", ["images/ADE", "images"])
def test_full_ade20k(tmp_path, folder):
    vocabulary = Vocabulary.from_label_set("ade20k_847")
    numbers = [vocabulary.dataset_ids[3], vocabulary.dataset_ids[846], 1]
    assert 1 not in vocabulary.dataset_ids
    for i in range(2):
        place = tmp_path / "ade" / folder / "validation" / "urban" / f"street_{i}"
        save(place / f"ADE_val_{i}.jpg", picture(i))
        number = np.array(numbers)[labels(i)]
        random = np.random.default_rng(i).integers(0, 10, number.shape)
        colors = np.stack([number // 256 * 10 + random, number % 256, random], axis=-1)
        save(place / f"ADE_val_{i}_seg.png", colors.astype(np.uint8))
        save(place / f"ADE_val_{i}_parts_1.png", colors.astype(np.uint8))
    opened = prepare("ade20k_847", tmp_path / "ade", tmp_path)
    check(opened["validation"], ["ADE_val_0", "ADE_val_1"], [np.array([3, 846, -1])[labels(i)] for i in range(2)])
    assert opened["validation"].reader.ignore_values == (65535,)


@pytest.mark.parametrize(("layout", "indices"), [("pascal_voc_21", [0, 20, -1]), ("pascal_voc_20", [-1, 19, -1])])
def test_pascal_voc(tmp_path, layout, indices):
    folder = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for i in range(3):
        save(folder / "JPEGImages" / f"2007_{i}.jpg", picture(i))
        palette = Image.fromarray(np.array([0, 20, 255], np.uint8)[labels(i)]).convert("P")
        palette.putdata(np.array([0, 20, 255], np.uint8)[labels(i)].ravel().tolist())
        save(folder / "SegmentationClass" / f"2007_{i}.png", palette)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_2\n")
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_0\n2007_1\n")
    opened = prepare(layout, tmp_path / "voc", tmp_path)
    assert len(opened["train"]) == 1
    check(opened["validation"], ["2007_0", "2007_1"], [np.array(indices)[labels(i)] for i in range(2)])


def make_context(folder):
    """VOC 2010 with the Detail API's file: regions of raw ids 2 and 458 (classes 0 and 58), the later one on top."""
    images, regions = [], []
    for i, phase in enumerate(["val", "val", "train"]):
        save(folder / "JPEGImages" / f"2008_{i}.jpg", picture(i))
        images.append({"image_id": i, "file_name": f"2008_{i}.jpg", "phase": phase, "height": 12, "width": 16})
        for category, mask in ((2, labels(i) <= 1), (458, labels(i) == 1)):
            regions.append({"image_id": i, "category_id": category, "segmentation": encode_rle(mask), "iscrowd": 0})
    content = {"images": images, "annos_segmentation": regions, "categories": [], "info": {}}
    (folder / "trainval_merged.json").write_text(json.dumps(content))


def test_pascal_context_59(tmp_path):
    make_context(tmp_path / "voc" / "VOCdevkit" / "VOC2010")
    opened = prepare("pascal_context_59", tmp_path / "voc", tmp_path)
    assert len(opened["train"]) == 1
    check(opened["validation"], ["2008_0", "2008_1"], [np.array([0, 58, -1])[labels(i)] for i in range(2)])


@pytest.mark.parametrize("with_merged_file", [False, True])
def test_pascal_context_459(tmp_path, with_merged_file):
    folder = tmp_path / "VOC2010"
    make_context(folder)
    (folder / "trainval").mkdir()
    for i in range(3):
        values = np.array([0, 1, 459], np.uint16)[labels(i)]
        savemat(folder / "trainval" / f"2008_{i}.mat", {"LabelMap": values}, do_compression=True)
    if not with_merged_file:
        (folder / "trainval_merged.json").unlink()
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        (folder / "ImageSets" / "Main" / "val.txt").write_text("2008_0\n2008_1\n")
    opened = prepare("pascal_context_459", tmp_path, tmp_path)
    assert list(opened) == (["train", "validation"] if with_merged_file else ["validation"])
    check(opened["validation"], ["2008_0", "2008_1"], [np.array([-1, 0, 458])[labels(i)] for i in range(2)])


def make_cityscapes(root):
    """Road (7), car (26, index 13) with two instances and a group, and an ego vehicle (1, ignored)."""
    ids = np.full((12, 16), 7)
    ids[:4, :4], ids[:4, 8:], ids[6:, :3], ids[11:] = 26001, 26002, 26, 1
    for i in range(2):
        stem = f"aachen_00000{i}_000019"
        save(root / "leftImg8bit" / "val" / "aachen" / f"{stem}_leftImg8bit.png", picture(i))
        gt = root / "gtFine" / "val" / "aachen"
        save(gt / f"{stem}_gtFine_instanceIds.png", ids.astype(np.uint16))
        save(gt / f"{stem}_gtFine_labelIds.png", np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8))
        save(gt / f"{stem}_gtFine_color.png", picture(i))
    truth = np.full((12, 16), 0)
    truth[:4, :4] = truth[:4, 8:] = truth[6:, :3] = 13
    truth[11:] = -1
    return ids, truth


def test_cityscapes(tmp_path):
    _, truth = make_cityscapes(tmp_path / "city")
    opened = prepare("cityscapes_19", tmp_path / "city", tmp_path)
    names = [f"aachen/aachen_00000{i}_000019" for i in range(2)]
    check(opened["validation"], names, [truth, truth])


def test_cityscapes_panoptic(tmp_path):
    ids, truth = make_cityscapes(tmp_path / "city")
    sample = prepare("cityscapes_19_panoptic", tmp_path / "city", tmp_path)["validation"][0]
    np.testing.assert_array_equal(sample.label_map(), truth)
    assert [(s.category_id, s.isthing, s.iscrowd) for s in sample.segments_info] == [
        (0, False, False),
        (13, True, True),
        (13, True, False),
        (13, True, False),
    ]
    for segment, number in zip(sample.segments_info, (7, 26, 26001, 26002), strict=True):
        np.testing.assert_array_equal(sample.segmentation == segment.id, ids == number)


# --- Run-length encoding ---


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_run_lengths_decode_to_the_mask_they_came_from(mask):
    np.testing.assert_array_equal(decode_run_lengths(encode_rle(mask)), mask)


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=70)), st.booleans())
def test_compressed_run_lengths_decode_as_cocos_own_code_does(mask, as_text):
    coco = pytest.importorskip("pycocotools.mask")
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if as_text:
        encoded["counts"] = encoded["counts"].decode()
    np.testing.assert_array_equal(decode_run_lengths(encoded), mask)


def test_run_lengths_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"sum to 5, but its size is 2×3"):
        decode_run_lengths({"size": [2, 3], "counts": [2, 3]})


# --- The result ---


def test_the_result_opens_with_datasets_alone_and_streams(tmp_path):
    make_ade20k(tmp_path / "ade")
    prepare("ade20k_150", tmp_path / "ade", tmp_path)
    output = tmp_path / "prepared"
    plain = datasets.load_dataset(str(output), split="validation")
    assert isinstance(plain[0]["label_map"], Image.Image)
    assert plain[0]["id"] == "ADE_val_00000000"
    stream = load_segmentation_dataset(output, split="train", streaming=True)
    truths = [np.array([-1, 0, 149])[labels(i)] for i in range(2)]
    for sample, truth in zip(stream, truths, strict=True):
        np.testing.assert_array_equal(sample.label_map(), truth)
    original = (tmp_path / "ade" / "images" / "validation" / "ADE_val_00000000.jpg").read_bytes()
    assert plain.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"] == original
    card = (output / "README.md").read_text()
    assert "2 train, 2 validation samples" in card
    assert "255 where ignored" in card


def test_folders_of_one_name_and_one_prepared_again_give_their_own_data(tmp_path):
    make_ade20k(tmp_path / "ade")
    make_cityscapes(tmp_path / "city")
    names = {}
    for layout, source, place in (
        ("ade20k_150", "ade", "first"),
        ("cityscapes_19", "city", "second"),
        ("cityscapes_19", "city", "first"),
    ):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
        prepare_dataset(layout, tmp_path / source, tmp_path / place / "prepared", progress=False)
        opened = load_segmentation_dataset(tmp_path / place / "prepared", split="validation")
        names[layout, place] = [sample.sample_id for sample in opened]
    assert names["ade20k_150", "first"] == ["ADE_val_00000000", "ADE_val_00000001"]
    assert names["cityscapes_19", "second"] == names["cityscapes_19", "first"] != names["ade20k_150", "first"]


def test_several_processes_and_shards_give_the_same_files(tmp_path, monkeypatch):
    make_ade20k(tmp_path / "ade")
    monkeypatch.setattr("hf_maskadapter.data.preparation._SHARD_BYTES", 1)
    for name, processes in (("one", 1), ("two", 2)):
        prepare_dataset("ade20k_150", tmp_path / "ade", tmp_path / name, num_proc=processes, progress=False)
    names = sorted(path.name for path in (tmp_path / "one" / "data").iterdir())
    assert names[0] == "train-00000-of-00002.parquet"
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "one" / "data" / name).read_bytes() == (tmp_path / "two" / "data" / name).read_bytes()


def test_splits_and_numbers_of_samples_can_be_limited(tmp_path):
    make_ade20k(tmp_path / "ade")
    opened = prepare("ade20k_150", tmp_path / "ade", tmp_path, splits=["val"], max_samples=1)
    assert list(opened) == ["validation"]
    assert [sample.sample_id for sample in opened["validation"]] == ["ADE_val_00000000"]
    with pytest.raises(ValueError, match="no split 'dev'"):
        prepare_dataset("ade20k_150", tmp_path / "ade", tmp_path / "other", splits=["dev"])


# --- Mistakes ---


@pytest.mark.parametrize("layout", RAW_LAYOUTS)
def test_a_wrong_folder_is_told_what_was_expected(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"Expected in .*empty: "):
        prepare_dataset(layout, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no folder"):
        prepare_dataset(layout, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_split_is_an_error_only_if_asked_for(tmp_path):
    make_ade20k(tmp_path / "ade")
    shutil.rmtree(tmp_path / "ade" / "images" / "training")
    with pytest.raises(DataError, match=r"images/training: there is no such folder"):
        prepare_dataset("ade20k_150", tmp_path / "ade", tmp_path / "out", splits=["train", "validation"])
    assert prepare_dataset("ade20k_150", tmp_path / "ade", tmp_path / "out", progress=False) == {"validation": 2}


@pytest.mark.parametrize("damage", ["picture", "label map", "size"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_damaged_sample_is_named_and_nothing_is_left_behind(tmp_path, damage, processes):
    make_ade20k(tmp_path / "ade")
    folder = "images" if damage == "picture" else "annotations"
    path = tmp_path / "ade" / folder / "validation" / f"ADE_val_00000001.{'jpg' if damage == 'picture' else 'png'}"
    if damage == "size":
        save(path, labels(0, 20, 20))
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="ADE_val_00000001"):
        prepare_dataset(
            "ade20k_150", tmp_path / "ade", tmp_path / "out", splits=["validation"], num_proc=processes, progress=False
        )
    assert sorted(os.listdir(tmp_path)) == ["ade"]


def test_an_existing_result_is_not_overwritten(tmp_path):
    make_ade20k(tmp_path / "ade")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="exists already"):
        prepare_dataset("ade20k_150", tmp_path / "ade", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="layout='ade' is unknown"):
        prepare_dataset("ade", tmp_path, tmp_path / "out")


def test_a_context_file_of_another_kind_is_refused(tmp_path):
    make_context(tmp_path)
    path = tmp_path / "trainval_merged.json"
    content = json.loads(path.read_text())
    content["annos_segmentation"][0]["category_id"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="category 1 is not one of the 59 classes"):
        prepare_dataset("pascal_context_59", tmp_path, tmp_path / "out", progress=False)
    path.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(DataError, match="not the Detail API's annotation file"):
        prepare_dataset("pascal_context_59", tmp_path, tmp_path / "out", progress=False)
