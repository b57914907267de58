"""Benchmarks on small imitations of each layout, and what they say about published numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.data import DataError, prepare_dataset
from hf_maskadapter.evaluation import evaluate_model
from hf_maskadapter.evaluation.benchmarks import BENCHMARKS, RawDataset, get_benchmark
from hf_maskadapter.model.vocabulary import Vocabulary
from support.data_samples import labels, picture, save
from support.evaluation_helpers import LabelPredictor


def lookup(*values):
    """`labels` with other numbers in place of 0, 1, 2."""
    return lambda seed: np.array(values)[labels(seed)]


def ade20k_150(root):
    for i in range(2):
        save(root / "images" / "validation" / f"ADE_val_{i}.jpg", picture(i))
        save(root / "annotations" / "validation" / f"ADE_val_{i}.png", lookup(0, 1, 150)(i).astype(np.uint8))
        instances = np.zeros((12, 16, 3), np.uint8)
        instances[10:] = (4, 3, 9)  # a person
        save(root / "annotations_instance" / "validation" / f"ADE_val_{i}.png", instances)
    return lookup(-1, 0, 149)


def ade20k_847(root):
    numbers = Vocabulary.from_label_set("ade20k_847").dataset_ids
    for i in range(2):
        place = root / "images" / "ADE" / "validation" / "urban" / "street"
        save(place / f"ADE_val_{i}.jpg", picture(i))
        number = lookup(numbers[3], numbers[846], 1)(i)
        colors = np.stack([number // 256 * 10, number % 256, number], axis=-1)
        save(place / f"ADE_val_{i}_seg.png", colors.astype(np.uint8))
    return lookup(3, 846, -1)


def pascal_voc(root):
    folder = root / "VOCdevkit" / "VOC2012"
    for i in range(2):
        save(folder / "JPEGImages" / f"2007_{i}.jpg", picture(i))
        save(folder / "SegmentationClass" / f"2007_{i}.png", lookup(0, 20, 255)(i).astype(np.uint8))
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_0\n2007_1\n")


def pascal_voc_20(root):
    pascal_voc(root)
    return lookup(-1, 19, -1)


def pascal_voc_21(root):
    pascal_voc(root)
    return lookup(0, 20, -1)


def run_lengths(mask):
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()}


def pascal_context_59(root):
    folder = root / "VOCdevkit" / "VOC2010"
    images, regions = [], []
    for i in range(2):
        save(folder / "JPEGImages" / f"2008_{i}.jpg", picture(i))
        images.append({"image_id": i, "file_name": f"2008_{i}.jpg", "phase": "val", "height": 12, "width": 16})
        for category, number in ((2, 0), (458, 1)):
            mask = labels(i) == number
            regions.append({"image_id": i, "category_id": category, "segmentation": run_lengths(mask)})
    (folder / "trainval_merged.json").write_text(json.dumps({"images": images, "annos_segmentation": regions}))
    return lookup(0, 58, -1)


def pascal_context_459(root):
    savemat = pytest.importorskip("scipy.io").savemat
    pascal_context_59(root)
    folder = root / "VOCdevkit" / "VOC2010" / "trainval"
    folder.mkdir()
    for i in range(2):
        savemat(folder / f"2008_{i}.mat", {"LabelMap": lookup(0, 1, 459)(i).astype(np.uint16)})
    return lookup(-1, 0, 458)


def cityscapes_19(root):
    for i in range(2):
        stem = f"aachen_{i}_19"
        save(root / "leftImg8bit" / "val" / "aachen" / f"{stem}_leftImg8bit.png", picture(i))
        for ending, values in (("labelIds", lookup(7, 26, 1)(i)), ("instanceIds", lookup(7, 26001, 1)(i))):
            path = root / "gtFine" / "val" / "aachen" / f"{stem}_gtFine_{ending}.png"
            save(path, values.astype(np.uint8 if ending == "labelIds" else np.uint16))
    return lookup(0, 13, -1)


def coco_panoptic_133(root):
    """Sky-like stuff (id 187), a person (1) and void."""
    annotations, images = [], []
    for i in range(2):
        save(root / "val2017" / f"{i:012d}.jpg", picture(i))
        ids = lookup(700, 5, 0)(i)
        colors = np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)
        save(root / "annotations" / "panoptic_val2017" / f"{i:012d}.png", colors)
        images.append({"id": i, "file_name": f"{i:012d}.jpg"})
        segments = [{"id": 700, "category_id": 187, "iscrowd": 0}, {"id": 5, "category_id": 1, "iscrowd": 0}]
        annotations.append({"image_id": i, "file_name": f"{i:012d}.png", "segments_info": segments})
    categories = [
        {"id": entry.dataset_id, "name": entry.name, "isthing": int(bool(entry.is_thing))}
        for entry in Vocabulary.from_label_set("coco_panoptic_133")
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    index = {entry.dataset_id: i for i, entry in enumerate(Vocabulary.from_label_set("coco_panoptic_133"))}
    return lookup(index[187], index[1], -1)


IMITATIONS = {
    function.__name__: function
    for function in (
        ade20k_150,
        ade20k_847,
        pascal_voc_20,
        pascal_voc_21,
        pascal_context_59,
        pascal_context_459,
        cityscapes_19,
        coco_panoptic_133,
    )
}


class SetPredictor(LabelPredictor):
    """The predictor without a model, for any classes."""

    def __init__(self, vocabulary, tasks):
        super().__init__(right=lambda *_: True, tasks=tasks, methods=("one",))
        self.vocabulary, self.seen_classes = vocabulary, None


def test_every_benchmark_is_imitated():
    assert BENCHMARKS.keys() == IMITATIONS.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_download_is_read_as_it_is_and_as_prepared(name, tmp_path):
    benchmark = get_benchmark(name)
    truth = IMITATIONS[name](tmp_path / "download")
    direct = benchmark.open(tmp_path / "download")
    assert isinstance(direct, RawDataset)
    assert len(direct) == 2
    layout = benchmark.layout_for(benchmark.tasks)
    prepare_dataset(layout, tmp_path / "download", tmp_path / "prepared", splits=["validation"], progress=False)
    prepared = benchmark.open(tmp_path / "prepared")
    assert direct.vocabulary == prepared.vocabulary == Vocabulary.from_label_set(benchmark.label_set)
    for number in range(2):
        one, other = direct[number], prepared[number]
        assert one.sample_id == other.sample_id
        np.testing.assert_array_equal(one.label_map(), truth(number))
        np.testing.assert_array_equal(other.label_map(), truth(number))
        np.testing.assert_array_equal(np.asarray(one.image), np.asarray(other.image))
    metrics = evaluate_model(SetPredictor(direct.vocabulary, benchmark.tasks), direct, show_progress=False).metrics
    assert metrics["mean_iou"] == 1.0
    assert metrics.get("pq", 1.0) == 1.0


@pytest.mark.parametrize("name", ["ade20k_150", "cityscapes_19"])
def test_panoptic_tasks_read_the_panoptic_annotation(name, tmp_path):
    IMITATIONS[name](tmp_path)
    benchmark = get_benchmark(name)
    dataset = benchmark.open(tmp_path, tasks=("panoptic", "instance"))
    assert dataset.has_instances
    assert not benchmark.open(tmp_path).has_instances
    predictor = SetPredictor(dataset.vocabulary, ("panoptic", "instance"))
    metrics = evaluate_model(predictor, dataset, show_progress=False).metrics
    assert metrics["pq"] == 1.0
    assert metrics["ap"] == pytest.approx(1.0)


def test_a_benchmark_without_instances_refuses_panoptic_tasks(tmp_path):
    with pytest.raises(ValueError, match=r"PC-59 .* has semantic annotation only"):
        get_benchmark("pascal_context_59").open(tmp_path, tasks=("panoptic",))


def test_data_prepared_for_other_tasks_are_refused(tmp_path):
    ade20k_150(tmp_path / "download")
    prepare_dataset("ade20k_150", tmp_path / "download", tmp_path / "prepared", splits=["validation"], progress=False)
    with pytest.raises(
        DataError, match="prepared with label maps, but these tasks need the layout 'ade20k_150_panoptic'"
    ):
        get_benchmark("ade20k_150").open(tmp_path / "prepared", tasks=("panoptic",))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_download_is_told_what_was_expected(name, tmp_path):
    with pytest.raises(DataError, match=f"(?s){tmp_path}.*needs, in {tmp_path}: "):
        get_benchmark(name).open(tmp_path)
    with pytest.raises(DataError, match="There is no folder"):
        get_benchmark(name).open(tmp_path / "nowhere")


def test_a_damaged_picture_or_annotation_is_named(tmp_path):
    ade20k_150(tmp_path)
    dataset = get_benchmark("ade20k_150").open(tmp_path)
    annotation = tmp_path / "annotations" / "validation" / "ADE_val_1.png"
    annotation.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"annotations/validation/ADE_val_1\.png cannot be read"):
        dataset[1]
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(annotation)
    with pytest.raises(DataError, match=r"ADE_val_1\.jpg.*16×12 pixels, but its label map 4×3"):
        dataset[1]


def test_synonyms_come_from_a_file_and_keep_names_and_order(tmp_path):
    names = Vocabulary.from_label_set("pascal_voc_21").names
    path = tmp_path / "synonyms.txt"
    path.write_text("".join(f"{i}:{name},another {name}\n" for i, name in enumerate(names)))
    for benchmark in ("pascal_voc_21", "pascal_voc_20"):
        vocabulary = get_benchmark(benchmark).vocabulary(path)
        assert vocabulary.names == Vocabulary.from_label_set(benchmark).names
        assert vocabulary.classes[0].synonyms[1].startswith("another ")
    with pytest.raises(ValueError, match="lists 21 classes"):
        get_benchmark("cityscapes_19").vocabulary(path)


def test_published_numbers_are_the_papers():
    columns = ("ade20k_847", "ade20k_150", "pascal_context_459", "pascal_context_59", "pascal_voc_20")
    rows = {
        "FC-CLIP-L": (14.8, 34.1, 18.2, 58.4, 95.4),
        "FC-CLIP-L with Mask-Adapter": (14.1, 36.6, 19.3, 59.7, 95.5),
        "MAFT+-B": (13.8, 34.5, 18.5, 57.5, 95.5),
        "MAFT+-B with Mask-Adapter": (14.2, 35.6, 17.9, 58.4, 95.1),
        "MAFT+-L": (15.5, 36.3, 21.2, 59.5, 96.4),
        "MAFT+-L with Mask-Adapter": (16.2, 38.2, 22.7, 60.4, 95.8),
    }
    for place, name in enumerate(columns):
        assert BENCHMARKS[name].published == {model: values[place] for model, values in rows.items()}


def test_scores_are_resized_where_published_runs_measured_mean_iou_alone():
    resized = {name for name, benchmark in BENCHMARKS.items() if benchmark.resize_scores}
    assert resized == {"ade20k_847", "pascal_context_59", "pascal_context_459", "pascal_voc_20", "pascal_voc_21"}
    assert BENCHMARKS["cityscapes_19"].image_size == (1024, 2560)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_instructions_say_what_to_download(name):
    text = get_benchmark(name).instructions()
    assert "{val" in text or "val" in text
    assert "with_prompt_eng.txt" in text


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(ValueError, match=r"no benchmark 'ade'; there are ade20k_150, "):
        get_benchmark("ade")
