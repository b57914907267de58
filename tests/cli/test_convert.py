"""`maskadapter convert`: from a released checkpoint to a model that segments."""

import os
from pathlib import Path

import pytest
from PIL import Image

from hf_maskadapter import cli
from support.commands import assert_one_error

FIXTURE = Path(__file__).parents[1] / "fixtures" / "fcclip_large"
EXAMPLES = Path(__file__).parents[2] / "examples"


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
