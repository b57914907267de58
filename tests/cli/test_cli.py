"""The command line: what it writes, and how it reports mistakes."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hf_maskadapter
from hf_maskadapter import cli
from hf_maskadapter.visualization import class_colors

LABELS = ["cat", "sky", "grass"]
FIXTURE = Path(__file__).parents[1] / "fixtures" / "fcclip_large"
EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(hf_maskadapter.__file__).parent.parent), "HF_HUB_OFFLINE": "1"}


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "hf_maskadapter.cli", *map(str, arguments)]


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


def assert_one_error(capsys, *parts: str) -> None:
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert errors[0].startswith("maskadapter")
    for part in parts:
        assert part in errors[0]


class TestHelp:
    def test_help_answers_within_a_second(self):
        fastest = float("inf")
        for _ in range(3):
            start = time.monotonic()
            done = subprocess.run(command("--help"), env=ENVIRONMENT, capture_output=True, text=True, check=True)
            fastest = min(fastest, time.monotonic() - start)
        assert "segment" in done.stdout
        assert "convert" in done.stdout
        assert fastest < 1

    def test_help_imports_neither_torch_nor_transformers(self):
        code = (
            "import sys; from hf_maskadapter import cli; cli.build_parser().format_help(); "
            "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_version_is_the_packages(self, capsys):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["--version"])
        assert exit_.value.code == 0
        assert capsys.readouterr().out.strip() == f"maskadapter {hf_maskadapter.__version__}"

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            ([], "COMMAND"),
            (["paint"], "paint"),
            (["segment"], "--output"),
            (["segment", "x.png", "--model", "m", "--output", "o"], "--labels"),
            (
                ["segment", "x.png", "--model", "m", "--output", "o", "--labels", "a", "--label-set", "no_such"],
                "no_such",
            ),
            (
                ["segment", "x.png", "--model", "m", "--output", "o", "--labels", "a", "--threshold", "2"],
                "between 0 and 1",
            ),
            (["segment", "x.png", "--model", "m", "--output", "o", "--labels", "a", "--batch-size", "0"], "at least 1"),
            (["convert", "x.pth"], "--output"),
        ],
    )
    def test_mistakes_in_the_arguments_get_one_line(self, capsys, arguments, part):
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert exit_.value.code == 2
        assert_one_error(capsys, part, "--help")


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
        for options in ((), ("--mask-embedding", "pooling"), ("--dtype", "bfloat16")):
            assert segment("picture.png", "--task", "instance", "--threshold", 0, "--json", *options) == 0
            scores.append([entry["score"] for entry in json.loads(Path("result.json").read_text())["segments"]])
        assert scores[0] != scores[1]
        assert scores[0] != scores[2]

    def test_result_replaces_an_earlier_one(self, segment):
        Path("result.png").write_bytes(b"old")
        assert segment("picture.png") == 0
        with Image.open("result.png") as result:
            result.load()


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

    def test_interrupt_signal_leaves_no_traceback(self, tmp_path):
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
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors.strip() == "maskadapter segment: interrupted"
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


class TestConvert:
    def test_converted_checkpoint_segments_a_picture(self, tmp_path, capsys):
        model, result = tmp_path / "model", tmp_path / "result.png"
        options = ["--config", EXAMPLES / "random_checkpoint.json", "--tokenizer", EXAMPLES / "byte_tokenizer"]
        arguments = ["convert", FIXTURE / "checkpoint.pth", *options, "--output", model]
        assert cli.main([*map(str, arguments)]) == 0
        assert "weights used" in capsys.readouterr().out
        arguments = [
            "segment",
            EXAMPLES / "scene.png",
            "--model",
            model,
            "--labels",
            "sky, grass, car",
            "--output",
            result,
        ]
        assert cli.main([*map(str, arguments), "--device", "cpu"]) == 0
        with Image.open(result) as painted:
            assert painted.width == 384

    def test_output_that_exists_is_kept_unless_overwriting_is_allowed(self, tmp_path, capsys):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        options = ["--config", str(EXAMPLES / "random_checkpoint.json"), "--output", str(tmp_path / "model")]
        options += ["--tokenizer", str(EXAMPLES / "byte_tokenizer")]
        source = str(FIXTURE / "checkpoint.pth")
        assert cli.main(["convert", source, *options]) == 2
        assert_one_error(capsys, "not empty")
        assert (tmp_path / "model" / "config.json").read_text() == "{}"
        assert cli.main(["convert", source, *options, "--overwrite"]) == 0
        assert (tmp_path / "model" / "model.safetensors").is_file()

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (["no_such_file.pth"], "no_such_file.pth"),
            ([str(FIXTURE / "meta.json")], "meta.json"),
            ([str(FIXTURE / "checkpoint.pth")], "config"),
            ([str(FIXTURE / "checkpoint.pth"), "--preset", "no-such-preset"], "no-such-preset"),
            ([str(FIXTURE / "checkpoint.pth"), "--config", "no_such.json"], "no_such.json"),
        ],
    )
    def test_mistakes_get_one_line_and_write_nothing(self, tmp_path, monkeypatch, capsys, arguments, part):
        monkeypatch.chdir(tmp_path)
        assert cli.main(["convert", *arguments, "--output", "model"]) == 2
        assert_one_error(capsys, part)
        assert os.listdir() == []
