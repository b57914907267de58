"""`maskadapter convert REPOSITORY`: what a Hub repository holds, read without fetching the weights."""

import json

import pytest

from support import released_checkpoints as released
from support.hub_fixtures import client, hub, server  # noqa: F401 -- fixtures
from support.hub_server import Blob

LIST = """
import contextlib, dataclasses, io, sys
from hf_maskadapter import cli
from hf_maskadapter.conversion import ConversionSettings, Preset, presets
from hf_maskadapter.conversion.layouts import FCCLIP_ADAPTER
from support import released_checkpoints as released

presets.PRESETS["small"] = Preset(
    "small", "a small model", FCCLIP_ADAPTER, {"mask_generator_config.num_queries": released.NUM_QUERIES},
    ConversionSettings(**released.SETTINGS),
)
output, errors = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
    status = cli.main(["convert", *arguments])
result = [status, output.getvalue().splitlines(), errors.getvalue().splitlines()]
"""

BASE = {  # OpenCLIP's convnext_base_w_320
    "hidden_sizes": [128, 256, 512, 1024],
    "depths": [3, 3, 27, 3],
    "head_width": None,
    "embed_dim": 640,
    "text_width": 640,
    "text_layers": 12,
    "vocab_size": 49408,
}


def safetensors_without_weights(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The head of a safetensors file, behind which nothing lies."""
    header, start = {}, 0
    for key, shape in shapes.items():
        stop = start + 4
        for size in shape:
            stop = start + (stop - start) * size
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    content = json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content


def pickled(state) -> bytes:
    import io

    import torch

    stream = io.BytesIO()
    torch.save({"model": state, "optimizer": {"state": torch.zeros(3_000_000)}}, stream)
    return stream.getvalue()


@pytest.fixture
def listing(hub, client, tmp_path):  # noqa: F811
    def run(*arguments, **options):
        return client.run(LIST, *arguments, home=tmp_path / "home", **options).expect_success()

    return run


def test_files_are_listed_with_the_presets_that_fit_and_their_weights_stay_there(hub, listing):  # noqa: F811
    checkpoint = pickled(released.fcclip_adapter())
    hub.publish(
        "jane/segmenters",
        {
            "clip/base.safetensors": Blob(safetensors_without_weights(released.convnext_clip_shapes(**BASE)), True),
            "model.pth": Blob(checkpoint, True),
            "notes.bin": Blob(b"no checkpoint", True),
            "README.md": Blob(b"", False),
        },
    )
    status, lines, errors = listing("jane/segmenters")
    assert (status, errors) == (0, [])
    assert [line.split()[0] for line in lines if line.startswith("jane")] == [
        "jane/segmenters:clip/base.safetensors",
        "jane/segmenters:model.pth",
        "jane/segmenters:notes.bin",
    ]
    assert lines[1:2] == ["    --preset openclip-convnext-base-w-320"]
    assert lines[2] == f"jane/segmenters:model.pth  {len(checkpoint) / 1e6:,.1f} MB"
    assert lines[3] == "    --preset small"
    assert lines[5] == "    no layout and sizes of a released model"
    assert lines[-1] == (
        "For example: maskadapter convert jane/segmenters:clip/base.safetensors --preset openclip-convnext-base-w-320 "
        "--output DIR"
    )
    wanted = [dict(headers).get("Range", "all") for method, path, headers in hub.requests if "/lfs/" in path]
    starts_and_stops = [text.removeprefix("bytes=").split("-") for text in wanted if text != "all"]
    assert sum(int(stop) - int(start) + 1 for start, stop in starts_and_stops) < len(checkpoint) / 2


def test_a_listed_line_converts(hub, listing, tmp_path):  # noqa: F811
    hub.publish("jane/segmenters", {"model.pth": Blob(pickled(released.fcclip_adapter()), True)})
    _, lines, _ = listing("jane/segmenters")
    words = lines[-1].removeprefix("For example: maskadapter convert ").split()
    status, lines, errors = listing(*words[:-1], tmp_path / "model")
    assert (status, errors) == (0, [])
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_repository_given_as_the_source_of_a_conversion_is_a_mistake_that_names_its_files(hub, listing, tmp_path):  # noqa: F811
    hub.publish("jane/segmenters", {"a.pth": Blob(b"one", True), "b.bin": Blob(b"two", True)})
    status, lines, errors = listing("jane/segmenters", "--output", tmp_path / "model")
    assert (status, lines) == (2, [])
    assert len(errors) == 1
    assert "name a file in it (jane/segmenters:a.pth, jane/segmenters:b.bin)" in errors[0]
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jane/nothing"], "there is no such repository"),
        (["jane/empty"], "the Hub repository jane/empty holds no checkpoint"),
        (["jane/empty:model.pth"], "say where the model goes: --output DIR"),
        (["jane/empty", "--revision", "v9"], "the repository has no such revision"),
    ],
)
def test_mistakes_are_told_in_one_line(hub, listing, arguments, message):  # noqa: F811
    hub.publish("jane/empty", {"README.md": Blob(b"", False)})
    status, lines, errors = listing(*arguments)
    assert (status, lines) == (2, [])
    assert len(errors) == 1
    assert message in errors[0]


def test_without_network_the_list_says_so(listing):
    status, _, errors = listing("jane/segmenters", offline=True)
    assert status == 2
    assert "the Hub cannot be reached" in errors[0]
