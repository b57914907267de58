"""The page, driven by Gradio's own client: what it is told, what it keeps, what it refuses."""

import base64
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.extras import needs_extra

needs_extra("app", "gradio", "httpx")

import gradio_client  # noqa: E402
import httpx  # noqa: E402

from hf_maskadapter.app import interface  # noqa: E402
from hf_maskadapter.app.interface import OWN_LABELS, build_app, launch_options  # noqa: E402
from hf_maskadapter.app.settings import AppSettings  # noqa: E402
from support.two_processes import free_port  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Where Gradio keeps its files."""
    return tmp_path_factory.mktemp("gradio")


@pytest.fixture(scope="module")
def address(models, files):
    settings = AppSettings(
        models=("miniature",), port=free_port(), max_pixels=500_000, max_upload_bytes=2_000_000, max_names=50
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(files))
        app = build_app(settings, models)
        _, address, _ = app.launch(**launch_options(settings))
        yield address
        app.close(verbose=False)


@pytest.fixture
def client(address, tmp_path):
    client = gradio_client.Client(address, verbose=False, download_files=str(tmp_path / "downloaded"))
    yield client
    client.close()


@pytest.fixture
def scene_file(scene, tmp_path) -> str:
    scene.picture.save(tmp_path / "my scene.png")
    return str(tmp_path / "my scene.png")


def ask(client, picture, name="/segment", **changed):
    inputs = {
        "labels": "water\nsand, beach",
        "label_set": OWN_LABELS,
        "things": "",
        "task": "semantic",
        "model": "miniature",
        "method": "adapter",
        "threshold": 0,
    } | changed
    return client.predict(
        None if picture is None else gradio_client.handle_file(picture), *inputs.values(), api_name=name
    )


def told(result) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", result[0]).split())


def kept(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def wait_until(holds, seconds=60):
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.1)


def test_a_picture_and_labels_give_segments_an_explanation_and_files(client, scene_file):
    message, viewer, explanation, downloads, *_ = ask(client, scene_file)
    assert told([message]) == "2 segments; 2 labels: water, sand (or beach)."
    assert [segment["label"] for segment in viewer["segments"]] == ["water", "sand"]
    assert sum(viewer["runs"][1::2]) == viewer["width"] * viewer["height"] == 768 * 768
    assert "Choose a segment" in explanation
    assert 'download="my scene_masks.png"' in downloads


def test_the_comparison_shows_three_pictures(client, scene_file, scene):
    message, comparison, *_ = ask(client, scene_file, "/compare", labels=scene.labels, things=scene.things)
    assert told([message]).startswith("21 labels: ")
    assert comparison.count("<img") == 3
    assert "striped green ring" in comparison


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"labels": ""}, "Say what to look for: one label a line, or labels separated by commas in a single line."),
        ({"labels": "cat\ndog\ncat"}, "class 3: the class &#x27;cat&#x27; is given twice, first in class 1; remove"),
        ({"labels": ",".join("abcdefghijk" * 5)}, "There are 55 names, and at most 50 are taken; leave some out."),
        ({"things": "cow"}, "things names classes that the vocabulary does not have: [&#x27;cow&#x27;]."),
        (
            {"labels": "<b>x</b>\n" + "long " * 200},
            "has 607 tokens, but the text tower reads at most 77: shorten the class",
        ),
    ],
    ids=["no labels", "twice", "too many", "wrong things", "too long"],
)
def test_mistakes_are_told_by_the_packages_sentences(client, scene_file, changed, sentence):
    for name in ("/segment", "/compare"):
        result = ask(client, scene_file, name, **changed)
        assert 'role="alert"' in result[0]
        assert sentence in told(result)
        assert "<b>" not in result[0]


def test_a_fault_of_the_app_is_told_in_words_too(client, scene_file, monkeypatch, capfd):
    monkeypatch.setattr(interface, "segment_picture", lambda model, wish: {}["lost"])
    assert "The app itself has a fault; the terminal in which it runs tells more." in told(ask(client, scene_file))
    assert "KeyError: 'lost'" in capfd.readouterr().err


def test_without_a_picture_it_is_said_how_to_get_one(client):
    assert "Choose a picture first: drop one, paste one, take one, or take an example scene." in told(ask(client, None))


def test_a_picture_of_too_many_pixels_is_refused_by_the_name_that_it_has_here(client, tmp_path):
    Image.new("1", (1000, 501)).save(tmp_path / "large.png")
    sentence = "large.png cannot be read: it has 1000 x 501 pixels, 0.5 million, and at most 0.5 million are taken"
    assert sentence in told(ask(client, str(tmp_path / "large.png")))


def test_what_is_no_picture_is_refused_likewise(client, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    sentence = "That did not work. text.png cannot be read: it is not a picture in a known format."
    assert told(ask(client, str(tmp_path / "text.png"))) == sentence


def test_a_picture_is_read_as_the_package_reads_it(client, scene, tmp_path):
    turned = scene.picture.transpose(Image.Transpose.ROTATE_90).crop((0, 0, 384, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    _, viewer, *_ = ask(client, str(tmp_path / "turned.png"))
    assert (viewer["width"], viewer["height"]) == (600, 768)

    clear = scene.picture.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    _, viewer, *_ = ask(client, str(tmp_path / "clear.png"))
    shown = Image.open(io.BytesIO(base64.b64decode(viewer["plain"].partition(",")[2])))
    assert np.asarray(shown).min() == 255  # white, as viewers show what is transparent


def test_nothing_but_the_upload_is_kept_and_that_until_the_page_is_closed(address, scene_file, files, tmp_path):
    wait_until(lambda: not kept(files))
    client = gradio_client.Client(address, verbose=False, download_files=str(tmp_path / "downloaded"))
    ask(client, scene_file)
    assert [file.name for file in kept(files)] == ["my scene.png"]
    client.close()
    wait_until(lambda: not kept(files))


def test_no_file_of_this_machine_can_be_asked_for(address, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    assert httpx.get(f"{address}gradio_api/file={secret}").status_code in (403, 404)
    forged = {"path": str(secret), "orig_name": "secret.png", "meta": {"_type": "gradio.FileData"}}
    inputs = [forged, "a", OWN_LABELS, "", "semantic", "miniature", "adapter", 0]
    event = httpx.post(f"{address}gradio_api/call/segment", json={"data": inputs}).json()["event_id"]
    assert httpx.get(f"{address}gradio_api/call/segment/{event}").text.startswith("event: error")


def test_too_large_a_file_is_refused(address):
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("large.png", b"0" * 2_000_001)})
    assert answer.status_code == 413


def test_gradio_is_told_to_record_and_to_send_nothing(address):
    config = httpx.get(f"{address}config").json()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert config["stylesheets"] == []
    assert "fonts.googleapis" not in json.dumps(config)
    assert httpx.get(f"{address}gradio_api/runs").status_code != 200


def test_every_input_has_a_label(address):
    components = httpx.get(f"{address}config").json()["components"]
    inputs = [entry for entry in components if entry["type"] in {"image", "textbox", "dropdown", "radio", "slider"}]
    assert len(inputs) == 8
    assert all(entry["props"]["label"] for entry in inputs)
