"""`maskadapter segment`: what it writes, and how it reports mistakes."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter import cli
from hf_maskadapter.visualization import class_colors
from support.commands import ENVIRONMENT, assert_one_error, command

LABELS = ["cat", "sky", "grass"]


@pytest.fixture
def folder(tmp_path, picture) -> Path:
    """A folder with one picture."""
    picture.save(tmp_path / "picture.png")
    return tmp_path


@pytest.fixture
def segment(folder, tiny_model_dir, monkeypatch):
    """Run `maskadapter segment` in the folder; returns the exit status."""
    monkeypatch.chdir(folder)

    def run(
        *arguments,
        labels: str | None = ", ".join(LABELS),
        output: str = "result.png",
        model: Path | str = tiny_model_dir,
        device: str = "cpu",
    ) -> int:
        options = ["--model", model, "--output", output, "--device", device]
        if labels is not None:
            options += ["--labels", labels]
        return cli.main(["segment", *map(str, arguments), *map(str, options)])

    return run


class TestSegment:
    def test_painted_picture_with_legend_is_written(self, segment, capsys):
        assert segment("picture.png") == 0
        with Image.open("result.png") as result:
            assert result.height > 60
        assert capsys.readouterr().out.startswith("result.png: ")
        assert sorted(os.listdir()) == ["picture.png", "result.png"]

    @pytest.mark.parametrize("name", ["result.jpg", "result.webp", "result.TIFF"])
    def test_format_follows_the_files_name(self, segment, name):
        assert segment("picture.png", "--no-legend", output=name) == 0
        with Image.open(name) as result:
            assert result.size == (90, 60)
            assert result.format.lower()[:3] in ("jpe", "web", "tif")

    def test_folder_gets_one_file_for_each_picture(self, segment, picture):
        picture.resize((40, 30)).save("another.jpg")
        assert segment("picture.png", "another.jpg", output="results") == 0
        assert sorted(os.listdir("results")) == ["another.png", "picture.png"]

    def test_pictures_of_a_folder_are_segmented(self, segment, picture):
        os.mkdir("pictures")
        picture.save("pictures/b.png")
        picture.save("pictures/a.jpg")
        Path("pictures/notes.txt").write_text("not a picture")
        assert segment("pictures", output="results") == 0
        assert sorted(os.listdir("results")) == ["a.png", "b.png"]

    def test_batches_give_each_picture_its_own_result(self, segment, picture):
        picture.resize((120, 40)).save("wide.png")
        assert segment("picture.png", "wide.png", "--batch-size", 2, "--no-legend", output="results") == 0
        for name, size in (("picture", (90, 60)), ("wide", (120, 40))):
            with Image.open(f"results/{name}.png") as result:
                assert result.size == size

    def test_json_and_id_map_of_a_semantic_result(self, segment):
        assert segment("picture.png", "--json", "--masks") == 0
        content = json.loads(Path("result.json").read_text())
        assert content["labels"] == LABELS
        assert (content["width"], content["height"], content["task"]) == (90, 60, "semantic")
        with Image.open("result_masks.png") as masks:
            assert masks.mode == "P"
            ids = np.asarray(masks)
            palette = masks.getpalette()
        assert sum(entry["area"] for entry in content["segments"]) == 90 * 60
        for entry in content["segments"]:
            inside = ids == entry["id"]
            assert entry["id"] == LABELS.index(entry["label"]) + 1 == entry["label_id"] + 1
            assert inside.sum() == entry["area"]
            left, top, width, height = entry["box"]
            assert inside[top : top + height, left : left + width].sum() == entry["area"]
            assert tuple(palette[3 * entry["id"] : 3 * entry["id"] + 3]) == class_colors(LABELS)[entry["label_id"]]
            assert entry["mask"] == "result_masks.png"

    def test_id_map_of_a_panoptic_result(self, segment):
        assert segment("picture.png", "--task", "panoptic", "--json", "--masks") == 0
        segments = json.loads(Path("result.json").read_text())["segments"]
        assert [entry["id"] for entry in segments] == list(range(1, len(segments) + 1))
        with Image.open("result_masks.png") as masks:
            areas = np.bincount(np.asarray(masks).ravel(), minlength=len(segments) + 1)
        assert areas[1:].tolist() == [entry["area"] for entry in segments]
        assert all(0 < entry["score"] <= 1 for entry in segments)

    def test_more_than_255_ids_make_a_16_bit_map(self, segment):
        labels = ", ".join(f"class {number}" for number in range(300))
        assert segment("picture.png", "--json", "--masks", labels=labels) == 0
        segments = json.loads(Path("result.json").read_text())["segments"]
        with Image.open("result_masks.png") as masks:
            assert set(np.unique(np.asarray(masks)).tolist()) == {entry["id"] for entry in segments}
            expected = "I;16" if max(entry["id"] for entry in segments) > 255 else "P"
            assert masks.mode == expected

    def test_instances_get_a_folder_of_masks(self, segment):
        arguments = ("picture.png", "--task", "instance", "--threshold", 0, "--json", "--masks")
        assert segment(*arguments) == 0
        segments = json.loads(Path("result.json").read_text())["segments"]
        assert len(segments) > 1
        assert sorted(os.listdir("result_masks")) == [f"{entry['id']:04d}.png" for entry in segments]
        for entry in segments:
            with Image.open(entry["mask"]) as mask:
                assert np.count_nonzero(np.asarray(mask)) == entry["area"]
        assert segment(*arguments[:4], 0.99, "--masks") == 0, "masks of an earlier run must not stay"
        assert os.listdir("result_masks") == []

    def test_labels_come_from_a_file_or_a_label_set(self, segment):
        Path("names.txt").write_text("cat, kitten\nsky\n")
        assert segment("picture.png", "--vocabulary", "names.txt", "--json", labels=None) == 0
        assert json.loads(Path("result.json").read_text())["labels"] == ["cat", "sky"]
        assert segment("picture.png", "--label-set", "cityscapes_19", "--json", labels=None) == 0
        assert len(json.loads(Path("result.json").read_text())["labels"]) == 19

    def test_stuff_is_left_out_of_instances(self, segment):
        assert segment("picture.png", "--task", "instance", "--threshold", 0, "--things", "cat", "--json") == 0
        segments = json.loads(Path("result.json").read_text())["segments"]
        assert {entry["label"] for entry in segments} == {"cat"}

    def test_mask_embedding_and_dtype_are_passed_on(self, segment):
        scores = []
        for options in ((), ("--mask-embedding", "pooling"), ("--dtype", "bfloat16"), ("--dtype", "int8")):
            assert segment("picture.png", "--task", "instance", "--threshold", 0, "--json", *options) == 0
            scores.append([entry["score"] for entry in json.loads(Path("result.json").read_text())["segments"]])
        assert scores[0] != scores[1]
        assert scores[0] != scores[2]
        assert scores[0] != scores[3]
        assert np.abs(np.subtract(scores[0], scores[3])).max() < 0.05

    def test_int8_on_an_accelerator_is_refused(self, segment, capsys):
        assert segment("picture.png", "--dtype", "int8", device="meta") == 2
        assert "--dtype int8 is for CPUs: choose bfloat16 on meta, or --device cpu" in capsys.readouterr().err

    def test_result_replaces_an_earlier_one(self, segment):
        Path("result.png").write_bytes(b"old")
        assert segment("picture.png") == 0
        with Image.open("result.png") as result:
            result.load()


def painted(name: str) -> tuple[bytes, int]:
    """The pixels of a painted picture, and when it was written."""
    with Image.open(name) as image:
        return image.tobytes(), Path(name).stat().st_mtime_ns


class TestFolders:
    @pytest.fixture
    def pictures(self, folder, picture) -> Path:
        """A folder with a picture, and one in a subfolder."""
        (folder / "pictures" / "sub").mkdir(parents=True)
        picture.save(folder / "pictures" / "a.png")
        picture.resize((60, 45)).save(folder / "pictures" / "sub" / "b.jpg")
        return folder / "pictures"

    def test_subfolders_are_left_out_unless_asked_for(self, segment, pictures):
        (folder := Path("results")).mkdir()
        assert segment("pictures", output="results") == 0
        assert os.listdir(folder) == ["a.png"]
        assert segment("pictures", "--recursive", "--no-legend", output="results") == 0
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == ["a.png", "sub/b.png"]
        with Image.open("results/sub/b.png") as result:
            assert result.size == (60, 45)

    def test_folder_with_pictures_in_subfolders_alone_gets_a_hint(self, segment, pictures, capsys):
        (pictures / "a.png").unlink()
        assert segment("pictures", output="results") == 2
        assert_one_error(capsys, "--recursive")

    def test_results_among_the_pictures_are_not_taken_for_pictures(self, segment, pictures):
        (pictures / "results").mkdir()
        for _ in range(2):
            assert segment("pictures", "--recursive", output="pictures/results") == 0
            assert sorted(path.name for path in (pictures / "results").rglob("*.*")) == ["a.png", "b.png"]

    def test_stopped_run_goes_on_where_it_was(self, segment, pictures, monkeypatch, capsys):
        arguments = ("pictures", "--recursive", "--json", "--masks")
        write, written = cli.segment._write_results, []

        def interrupt(job, *args):
            if written:
                raise KeyboardInterrupt
            write(job, *args)
            written.append(job.picture.name)

        with monkeypatch.context() as patch:
            patch.setattr(cli.segment, "_write_results", interrupt)
            assert segment(*arguments, output="results") == 130
        assert written == ["a.png"]
        assert not Path("results/.lock").exists()
        first = painted("results/a.png")
        capsys.readouterr()
        assert segment(*arguments, output="results") == 0
        assert capsys.readouterr().out.splitlines()[-1] == "1 pictures segmented, 1 were done before"
        assert painted("results/a.png") == first
        assert Path("results/sub/b.json").is_file()

    def test_finished_folder_needs_no_model_and_new_pictures_are_added(self, segment, pictures, picture, monkeypatch):
        assert segment("pictures", output="results") == 0
        with monkeypatch.context() as patch:
            patch.setattr(cli.segment, "Segmenting", None)
            assert segment("pictures", output="results") == 0
        before = painted("results/a.png")
        picture.save(pictures / "new.png")
        assert segment("pictures", output="results") == 0
        assert painted("results/a.png") == before
        assert sorted(os.listdir("results")) == ["a.png", "new.png"]

    @pytest.mark.parametrize(
        "change",
        [("--overwrite",), ("--task", "panoptic"), ("--no-legend",), ("--mask-embedding", "pooling"), ("--json",)],
        ids=" ".join,
    )
    def test_other_options_make_finished_pictures_anew(self, segment, pictures, change):
        assert segment("pictures", output="results") == 0
        _, before = painted("results/a.png")
        assert segment("pictures", *change, output="results") == 0
        assert painted("results/a.png")[1] > before

    def test_changed_picture_is_made_anew(self, segment, pictures, picture):
        assert segment("pictures", "--no-legend", output="results") == 0
        picture.resize((30, 20)).save(pictures / "a.png")
        assert segment("pictures", "--no-legend", output="results") == 0
        with Image.open("results/a.png") as result:
            assert result.size == (30, 20)

    def test_second_run_on_a_folder_is_refused(self, segment, pictures, capsys):
        from hf_maskadapter.files import folder_lock

        with folder_lock("results", "segment"):
            assert segment("pictures", output="results") == 2
        assert_one_error(capsys, "results is in use", f"process {os.getpid()}")
        assert not Path("results").exists()


class TestThresholds:
    """Options that would have no effect are refused."""

    @pytest.mark.parametrize("task", [(), ("--task", "semantic")])
    def test_semantic_results_have_no_threshold(self, segment, capsys, task):
        assert segment("picture.png", "--threshold", 0.5, *task) == 2
        assert_one_error(capsys, "--threshold", "--task panoptic or instance")

    @pytest.mark.parametrize("task", ["semantic", "instance"])
    def test_overlap_is_a_matter_of_panoptic_results(self, segment, capsys, task):
        assert segment("picture.png", "--overlap-threshold", 0.5, "--task", task) == 2
        assert_one_error(capsys, "--overlap-threshold", "--task panoptic")


class TestOldSpelling:
    """Until version 0.3, `segment --format` and `segment --dataset` are `annotate`, with a hint."""

    def test_of_pictures_works_with_a_hint(self, segment, capsys):
        assert segment("picture.png", "--format", "cvat", output="out") == 0
        assert Path("out/annotations.xml").is_file()
        (hint,) = capsys.readouterr().err.splitlines()
        assert hint.startswith("maskadapter segment: hint: ")
        assert "maskadapter annotate" in hint

    def test_of_a_data_set_works_with_a_hint(self, segment, capsys):
        arguments = ("--dataset", "scenes", "--max_pictures", 1, "--format=coco-panoptic")
        assert segment(*arguments, output="out") == 0
        assert Path("out/panoptic.json").is_file()
        assert "maskadapter annotate" in capsys.readouterr().err


class TestMistakes:
    def test_missing_picture(self, segment, capsys):
        assert segment("nothing.png") == 2
        assert_one_error(capsys, "there is no file nothing.png")

    @pytest.mark.parametrize("content", [b"", b"no picture at all"])
    def test_unreadable_picture(self, segment, capsys, content):
        Path("broken.png").write_bytes(content)
        assert segment("broken.png") == 2
        assert_one_error(capsys, "broken.png")

    def test_truncated_picture(self, segment, capsys):
        content = io.BytesIO()
        Image.effect_noise((200, 200), 50).save(content, format="JPEG")
        Path("broken.jpg").write_bytes(content.getvalue()[:1000])
        assert segment("broken.jpg") == 2
        assert_one_error(capsys, "broken.jpg cannot be read")
        assert not Path("result.png").exists()

    def test_nothing_to_segment(self, segment, capsys):
        assert segment() == 2
        assert_one_error(capsys, "name pictures")

    @pytest.mark.parametrize("arguments", [("broken.png",), ("broken.png", "nothing.png"), ("picture.png",)])
    def test_wrong_picture_or_device_is_told_before_the_model_is_loaded(self, segment, monkeypatch, capsys, arguments):
        from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation

        def load(*args, **kwargs):
            raise AssertionError("the model was loaded")

        Path("broken.png").write_bytes(b"no picture at all")
        monkeypatch.setattr(MaskAdapterForOpenVocabularySegmentation, "from_pretrained", load)
        device = "abacus" if "picture.png" in arguments else "cpu"
        assert segment(*arguments, output="results", device=device) == 2
        assert arguments[-1].partition(".")[0] in capsys.readouterr().err or device == "abacus"
        assert not Path("results").exists()

    def test_bad_pictures_among_many_are_reported_and_the_rest_go_on(self, segment, picture, capsys):
        Path("broken.png").write_bytes(b"no picture at all")
        picture.save("good.png")
        assert segment("picture.png", "broken.png", "nothing.png", "good.png", output="results") == 1
        assert sorted(os.listdir("results")) == ["good.png", "picture.png"]
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 2
        assert "broken.png" in errors[0]
        assert "there is no file nothing.png" in errors[1]

    def test_folder_without_pictures(self, segment, capsys):
        os.mkdir("empty")
        assert segment("empty") == 2
        assert_one_error(capsys, "no pictures in the folder empty")

    @pytest.mark.parametrize(("labels", "part"), [("", "empty"), (" , ", "empty"), ("cat, cat", "twice")])
    def test_unusable_labels(self, segment, capsys, labels, part):
        assert segment("picture.png", labels=labels) == 2
        assert_one_error(capsys, part)

    def test_label_that_is_too_long(self, segment, capsys):
        assert segment("picture.png", labels="cat, " + "very " * 40 + "long") == 2
        assert_one_error(capsys, "tokens")

    def test_missing_vocabulary_file(self, segment, capsys):
        assert segment("picture.png", "--vocabulary", "names.txt", labels=None) == 2
        assert_one_error(capsys, "names.txt")

    def test_unknown_thing(self, segment, capsys):
        assert segment("picture.png", "--things", "zebra") == 2
        assert_one_error(capsys, "zebra")

    def test_output_in_a_folder_that_does_not_exist(self, segment, capsys):
        assert segment("picture.png", output="no/such/result.png") == 2
        assert_one_error(capsys, "there is no folder no/such")

    def test_output_that_is_a_file_where_a_folder_is_needed(self, segment, picture, capsys):
        picture.save("second.png")
        Path("results").write_text("a file")
        assert segment("picture.png", "second.png", output="results") == 2
        assert_one_error(capsys, "must be a folder")

    def test_output_file_that_is_no_picture(self, segment, capsys):
        Path("notes.txt").write_text("notes")
        assert segment("picture.png", output="notes.txt") == 2
        assert_one_error(capsys, "is no picture")
        assert Path("notes.txt").read_text() == "notes"

    def test_output_that_would_overwrite_the_picture(self, segment, capsys):
        before = Path("picture.png").read_bytes()
        for output in ("picture.png", "."):
            assert segment("picture.png", output=output) == 2
            assert_one_error(capsys, "overwrite")
        assert Path("picture.png").read_bytes() == before

    def test_two_pictures_with_one_result(self, segment, picture, capsys):
        picture.save("picture.jpg")
        assert segment("picture.png", "picture.jpg", output="results") == 2
        assert_one_error(capsys, "would both be written")

    def test_output_that_cannot_be_written(self, segment, monkeypatch, capsys):
        def fail(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", fail)
        assert segment("picture.png") == 2
        assert_one_error(capsys, "No space left on device")
        assert os.listdir() == ["picture.png"]

    @pytest.mark.parametrize(
        ("model", "part"),
        [
            ("./no_such_folder", "there is no model folder"),
            ("nobody/no-such-model", "cannot be loaded"),
            (".", "loaded"),
        ],
    )
    def test_model_that_is_not_there(self, segment, model, part, capsys):
        assert segment("picture.png", model=model) == 2
        assert_one_error(capsys, part)

    def test_model_of_another_kind(self, segment, capsys):
        Path("bert").mkdir()
        Path("bert/config.json").write_text('{"model_type": "bert"}')
        assert segment("picture.png", model="bert") == 2
        assert_one_error(capsys, "'bert'")

    def test_model_without_tokenizer(self, segment, tiny_model_dir, capsys):
        from hf_maskadapter import MaskAdapterImageProcessorPil

        Path("model").mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_model_dir / name, "model")
        MaskAdapterImageProcessorPil().save_pretrained("model")
        assert segment("picture.png", model="model") == 2
        assert_one_error(capsys, "--tokenizer")

    def test_damaged_weights(self, segment, tiny_model_dir, capsys):
        shutil.copytree(tiny_model_dir, "model")
        weights = Path("model/model.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])
        assert segment("picture.png", model="model") == 2
        assert_one_error(capsys, "cannot be loaded")

    def test_device_that_is_not_there(self, segment, capsys):
        assert segment("picture.png", device="abacus") == 2
        assert_one_error(capsys, "--device abacus")

    def test_missing_font(self, segment, capsys):
        assert segment("picture.png", "--font", "no.ttf") == 2
        assert_one_error(capsys, "no.ttf")

    def test_out_of_memory_says_what_to_do(self, segment, monkeypatch, capsys):
        import torch

        from hf_maskadapter import ZeroShotImageSegmentationPipeline

        def fail(*args, **kwargs):
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")

        monkeypatch.setattr(ZeroShotImageSegmentationPipeline, "_forward", fail)
        assert segment("picture.png") == 2
        assert_one_error(capsys, "--batch-size")

    def test_interruption_ends_with_130_and_one_line(self, segment, monkeypatch, capsys):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli.segment, "_write_results", interrupt)
        assert segment("picture.png") == 130
        assert_one_error(capsys, "interrupted")

    @pytest.mark.parametrize(
        ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
    )
    def test_signal_leaves_no_traceback(self, tmp_path, number, status, word):
        os.mkfifo(tmp_path / "endless.png")
        arguments = ("segment", "endless.png", "--model", ".", "--labels", "cat", "--output", "result.png")
        process = subprocess.Popen(
            command(*arguments),
            env=ENVIRONMENT,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
        )
        with open(tmp_path / "endless.png", "wb"):  # returns when the command opens the picture
            time.sleep(0.5)  # and now it waits for the picture's content
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == status
        assert errors.strip() == f"maskadapter segment: {word}"
        assert os.listdir(tmp_path) == ["endless.png"]


def test_progress_bar_is_shown_on_a_terminal(folder, tiny_model_dir, picture):
    picture.save(folder / "second.png")
    arguments = ["picture.png", "second.png", "--model", tiny_model_dir, "--labels", "cat", "--output", "results"]
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    try:
        process = subprocess.run(
            command("segment", *arguments),
            env=ENVIRONMENT,
            cwd=folder,
            stderr=end,
            stdout=subprocess.PIPE,
            text=True,
        )
        shown = os.read(terminal, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(end)
    assert process.returncode == 0
    assert "2/2" in shown
    assert len(process.stdout.splitlines()) == 2
