"""`maskadapter annotate`: whole data sets, in other tools' formats, stopped and gone on with."""

import json
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from hf_maskadapter import ZeroShotImageSegmentationPipeline, cli
from hf_maskadapter.cli import annotate, annotating
from hf_maskadapter.exchange import FORMATS, read_results
from hf_maskadapter.files import folder_lock

LABELS = "cat, sky, grass"


@pytest.fixture
def folder(tmp_path, picture, monkeypatch) -> Path:
    """A folder with pictures of different sizes, one of them in a subfolder."""
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    picture.save(tmp_path / "pictures" / "a.png")
    picture.resize((60, 45)).save(tmp_path / "pictures" / "b.jpg")
    picture.resize((40, 64)).save(tmp_path / "pictures" / "sub" / "c.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def segment(folder, tiny_model_dir):
    def run(*arguments, source=("--dataset", "pictures"), output: str = "out") -> int:
        options = ["--model", tiny_model_dir, "--output", output, "--device", "cpu", "--labels", LABELS]
        return cli.main(["annotate", *map(str, [*source, *arguments, *options])])

    return run


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """One entry for each picture that the model saw."""
    seen: list[int] = []
    original = ZeroShotImageSegmentationPipeline.postprocess

    def count(self, *args, **kwargs):
        seen.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ZeroShotImageSegmentationPipeline, "postprocess", count)
    return seen


@pytest.fixture
def one_picture_at_a_time():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def error(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_formats_of_the_command_are_those_of_the_package():
    assert {name: kind.tasks for name, kind in FORMATS.items()} == annotate.FORMATS


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_folder_is_segmented_into_every_format(segment, name):
    assert segment("--format", name, "--batch-size", 2) == 0
    results = {Path(result.picture).stem: result for result in read_results("out", name).results}
    assert sorted(results) == ["a", "b", "c"]
    assert (results["b"].width, results["b"].height) == (60, 45)
    assert not list(Path("out").rglob("*.unfinished"))


def test_results_are_those_of_the_pipeline(segment, folder, tiny_model_dir):
    assert segment("--format", "cvat", "--task", "panoptic") == 0
    from transformers import pipeline

    from hf_maskadapter.model.segments import Segments

    segmenter = pipeline("zero-shot-image-segmentation", model=str(tiny_model_dir), device="cpu")
    stored = read_results("out", "cvat")
    for result in stored.results:
        with Image.open(folder / "pictures" / result.picture) as image:
            segments = segmenter(image, candidate_labels=LABELS, subtask="panoptic")
            expected = Segments.from_pipeline(segments, (image.height, image.width), stored.vocabulary)
        assert sorted(s.mask.tobytes() for s in result.segments) == sorted(s.mask.tobytes() for s in expected.segments)


def test_second_run_goes_on_and_repeats_nothing(segment, forwards, one_picture_at_a_time, monkeypatch, capsys):
    def interrupt(*args):
        if len(forwards) == 2:
            raise KeyboardInterrupt
        return original(*args)

    original = annotating._copy
    with monkeypatch.context() as patch:
        patch.setattr(annotating, "_copy", interrupt)
        assert segment("--format", "coco-panoptic", "--copy-pictures") == 130
    assert not Path("out/panoptic.json").exists()
    forwards.clear()
    assert segment("--format", "coco-panoptic", "--copy-pictures") == 0
    assert len(forwards) == 2  # the second picture was not finished
    assert "2 pictures segmented, 1 were done before" in capsys.readouterr().out
    assert segment("--format", "coco-panoptic", "--copy-pictures", output="at_once") == 0
    for path in Path("at_once").rglob("*.*"):
        assert (Path("out") / path.relative_to("at_once")).read_bytes() == path.read_bytes()


def test_finished_data_set_needs_no_model(segment, monkeypatch):
    assert segment("--format", "cvat") == 0
    before = Path("out/annotations.xml").read_bytes()
    monkeypatch.setattr(annotating, "Segmenting", None)
    assert segment("--format", "cvat") == 0
    assert Path("out/annotations.xml").read_bytes() == before


def test_new_pictures_are_added(segment, picture, forwards):
    assert segment("--format", "coco-instance", "--max-pictures", 2) == 0
    assert segment("--format", "coco-instance") == 0
    assert len(forwards) == 3
    assert len(COCO("out/annotations.json").imgs) == 3


def test_label_maps_with_copied_pictures_can_be_trained_on(segment):
    from hf_maskadapter.data import load_segmentation_dataset

    assert segment("--format", "label-map", "--copy-pictures") == 0
    data = load_segmentation_dataset("out")
    assert [sample.sample_id for sample in data] == ["a", "b", "sub/c"]
    assert data.vocabulary.names == ("cat", "sky", "grass")


def test_pictures_can_be_named_instead_of_a_data_set(segment):
    assert segment("--format", "label-studio", source=("pictures/sub/c.png", "pictures/a.png")) == 0
    names = [task["data"]["file_name"] for task in json.loads(Path("out/tasks.json").read_text())]
    assert names == ["c.png", "a.png"]


def test_scenes_are_drawn(segment):
    assert segment("--format", "cvat", "--max-pictures", 2, source=("--dataset", "scenes")) == 0
    assert [result.picture for result in read_results("out", "cvat").results] == ["test-0-0.png", "test-0-1.png"]


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_hugging_face_data_set_is_segmented_with_its_names(segment, picture, streaming):
    columns = {"image": [picture, picture.resize((50, 40))], "image_id": [7, 9], "caption": ["x", "y"]}
    features = datasets.Features(
        {"image": datasets.Image(), "image_id": datasets.Value("int64"), "caption": datasets.Value("string")}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk("data")
    assert segment("--format", "coco-instance", *streaming, source=("--dataset", "data")) == 0
    content = json.loads(Path("out/annotations.json").read_text())
    assert [(image["id"], image["file_name"]) for image in content["images"]] == [(7, "7.png"), (9, "9.png")]


def test_pictures_without_names_are_numbered(segment, picture):
    datasets.Dataset.from_dict(
        {"image": [picture] * 2}, features=datasets.Features(image=datasets.Image())
    ).save_to_disk("data")
    assert segment("--format", "cvat", source=("--dataset", "data")) == 0
    assert [result.picture for result in read_results("out", "cvat").results] == ["000000.png", "000001.png"]


def test_damaged_picture_is_reported_the_rest_goes_on_and_it_is_tried_again(segment, picture, forwards, capsys):
    Path("pictures/b.jpg").write_bytes(b"no picture")
    assert segment("--format", "cvat") == 1
    assert "b.jpg" in error(capsys)
    assert [result.picture for result in read_results("out", "cvat").results] == ["a.png", "sub/c.png"]
    picture.save("pictures/b.jpg")
    forwards.clear()
    assert segment("--format", "cvat") == 0
    assert len(forwards) == 1
    assert len(list(read_results("out", "cvat").results)) == 3


def test_other_options_do_not_mix_with_earlier_results(segment, capsys):
    assert segment("--format", "cvat") == 0
    assert segment("--format", "cvat", "--mask-embedding", "pooling") == 2
    assert "what differs: mask_embedding" in error(capsys)
    assert segment("--format", "cvat", "--mask-embedding", "pooling", "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "source", "part"),
    [
        ((), ("--dataset", "pictures"), "--format"),
        (("--format", "cvat"), (), "either pictures or a data set"),
        (("--format", "cvat"), ("pictures", "--dataset", "pictures"), "either pictures or a data set"),
        (("--format", "label-map", "--task", "instance"), ("--dataset", "pictures"), "holds --task semantic"),
        (("--format", "cvat"), ("--dataset", "./nowhere"), "no folder or file ./nowhere"),
        (("--format", "cvat"), ("nowhere.png",), "no file nowhere.png"),
        (("--format", "cvat"), ("--dataset", "empty"), "empty"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(segment, capsys, arguments, source, part):
    os.mkdir("empty")
    assert segment(*arguments, source=source) == 2
    assert part in error(capsys)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--format", "label-map", "--threshold", 0.5), "--threshold"),
        (("--format", "coco-instance", "--overlap-threshold", 0.5), "--overlap-threshold"),
    ],
)
def test_options_without_effect_are_refused(segment, capsys, arguments, part):
    assert segment(*arguments) == 2
    assert part in error(capsys)
    assert not Path("out").exists()


def test_options_of_painted_pictures_are_unknown(segment, capsys):
    with pytest.raises(SystemExit, match="2"):
        segment("--format", "cvat", "--json")
    assert "--json" in error(capsys)


def test_a_folder_is_named_as_a_data_set_is(segment):
    assert segment("--format", "cvat", source=("pictures",)) == 0
    assert [result.picture for result in read_results("out", "cvat").results] == ["a.png", "b.jpg", "sub/c.png"]


def test_of_a_folder_with_pictures_and_label_maps_the_pictures_are_segmented(segment, picture):
    for kind in ("images", "labels"):
        Path("data", kind).mkdir(parents=True)
        picture.convert("L" if kind == "labels" else "RGB").save(f"data/{kind}/x.png")
    assert segment("--format", "cvat", source=("data",)) == 0
    assert [result.picture for result in read_results("out", "cvat").results] == ["x.png"]


def test_second_run_on_a_folder_is_refused(segment, capsys):
    with folder_lock("out", "annotate"):
        assert segment("--format", "cvat") == 2
    assert f"out is in use: process {os.getpid()}" in error(capsys)
    assert not Path("out").exists()


def test_model_that_is_not_there_leaves_nothing_behind(segment, capsys):
    assert segment("--format", "cvat", "--subfolder", "nowhere") == 2
    assert "cannot be loaded" in error(capsys)
    assert not Path("out").exists()


def test_output_that_is_a_file_is_refused(segment, capsys):
    Path("out").write_text("a file")
    assert segment("--format", "cvat") == 2
    assert "must be a folder" in error(capsys)


def test_full_disk_gets_one_line(segment, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "packbits", fail)
    assert segment("--format", "label-studio") == 2
    assert "No space left" in error(capsys)
