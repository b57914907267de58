"""Pictures and labels in, masks out, as a client sees it."""

import base64
import copy
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx", "pycocotools")

from PIL import Image  # noqa: E402

from hf_maskadapter.exchange.plain import segment_records  # noqa: E402
from hf_maskadapter.serving.results import SEGMENTS_KEYWORD  # noqa: E402
from hf_maskadapter.serving.service import Service  # noqa: E402
from support.service import LABELS, as_file, detail, mask_of, scene, wait_until  # noqa: E402

QUESTIONS = [
    {},
    {"task": "panoptic", "threshold": 0.2, "overlap_threshold": 0.5, "things": ["dotted yellow star"]},
    {"task": "instance", "threshold": 0.05},
    {"mask_embedding": "pooling"},
]


def expected(segmenter, picture, question):
    """What the pipeline finds in one picture by itself."""
    from hf_maskadapter import Vocabulary

    options = {
        "subtask": question.get("task", "semantic"),
        "threshold": question.get("threshold"),
        "overlap_mask_area_threshold": question.get("overlap_threshold"),
        "mask_embedding": question.get("mask_embedding"),
    }
    vocabulary = Vocabulary.parse(LABELS)
    if "things" in question:
        vocabulary = vocabulary.with_things(question["things"])
    return segmenter(picture, candidate_labels=vocabulary, return_segments=True, **options)


def assert_same(answer, segments, *, noise=0):
    records = segment_records(segments)
    masks = segments.best_first() if segments.task == "instance" else list(segments)
    assert len(answer["segments"]) == len(records) > 0
    for found, record, segment in zip(answer["segments"], records, masks, strict=True):
        assert {name: found[name] for name in ("id", "label", "label_id")} == {
            name: record[name] for name in ("id", "label", "label_id")
        }
        assert found["score"] == (None if record["score"] is None else pytest.approx(record["score"], abs=1e-4))
        assert np.count_nonzero(mask_of(found) != segment.mask) <= noise
        if not noise:
            assert (found["area"], found["box"]) == (record["area"], record["box"])


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_what_the_pipeline_finds(client, segmenter, question):
    picture = scene()
    body = {"image": base64.b64encode(as_file(picture)).decode(), "labels": LABELS, **question}
    answer = client.post("/v1/segment", json=body).raise_for_status().json()
    segments = expected(segmenter, picture, question)
    assert_same(answer, segments)
    assert {name: answer[name] for name in ("model", "task", "width", "height", "labels")} == {
        "model": "miniature",
        "task": segments.task,
        "width": 128,
        "height": 96,
        "labels": ["sand", "water", "dotted yellow star", "checked pink cross", "plain cyan triangle"],
    }


def test_base64_may_be_broken_into_lines(client):
    lines = base64.encodebytes(as_file(scene())).decode()
    assert lines.count("\n") > 1
    whole, broken = (
        client.post("/v1/segment", json={"image": text, "labels": LABELS}).raise_for_status().json()
        for text in (lines.replace("\n", ""), lines)
    )
    assert broken == whole


def test_a_picture_may_come_as_base64_a_data_address_an_upload_or_bare_bytes(client):
    file = as_file(scene())
    text = base64.b64encode(file).decode()
    question = {"labels": "sand, water", "task": "panoptic", "threshold": "0.2", "things": "sand"}
    answers = [
        client.post("/v1/segment", json=question | {"image": text, "things": ["sand"]}),
        client.post("/v1/segment", json=question | {"image": f"data:image/png;base64,{text}", "things": ["sand"]}),
        client.post("/v1/segment", files={"image": ("scene.png", file)}, data=question),
        client.post("/v1/segment", files=[("image", (None, file)), *((k, (None, v)) for k, v in question.items())]),
        client.post("/v1/segment", content=file, params=question, headers={"content-type": "image/png"}),
        client.post("/v1/segment", content=file, params=question, headers={"content-type": "application/octet-stream"}),
    ]
    assert len({answer.raise_for_status().content for answer in answers}) == 1
    assert answers[0].json()["segments"]


def test_several_values_of_a_form_are_labels_with_synonyms(client):
    answer = client.post("/v1/segment", files={"image": as_file(scene())}, data={"labels": ["sand", "water, sea"]})
    assert answer.json()["labels"] == ["sand", "water"]


def test_a_picture_is_seen_as_a_viewer_shows_it(client):
    turned = scene(128, 96).transpose(Image.Transpose.ROTATE_90)  # as a camera on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    answer = client.post(
        "/v1/segment", files={"image": as_file(turned, exif=exif)}, data={"labels": LABELS}
    ).raise_for_status()
    upright = client.post("/v1/segment", files={"image": as_file(scene(128, 96))}, data={"labels": LABELS})
    assert answer.content == upright.content
    assert (answer.json()["width"], answer.json()["height"]) == (128, 96)


@pytest.mark.parametrize("question", QUESTIONS[:3])
def test_a_png_holds_the_ids_of_the_json(client, question):
    body = {"image": base64.b64encode(as_file(scene())).decode(), "labels": LABELS, **question}
    told = client.post("/v1/segment", json=body).json()["segments"]
    answers = [
        client.post("/v1/segment", json=body | {"format": "png"}),
        client.post("/v1/segment", json=body, headers={"accept": "image/png"}),
    ]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(answers[0].content))
    ids = np.asarray(image)
    assert json.loads(image.text[SEGMENTS_KEYWORD]) == [
        {name: value for name, value in record.items() if name != "segmentation"} for record in told
    ]
    owner = np.zeros(ids.shape, dtype=int)
    for record in told[::-1] if question.get("task") == "instance" else told:  # the best instance is seen
        owner[mask_of(record)] = record["id"]
    assert (ids == owner).all()
    assert len(np.unique(ids)) > 1


def test_an_overlay_is_the_picture_painted(client, segmenter):
    from hf_maskadapter.visualization import overlay

    picture = scene()
    answer = client.post(
        "/v1/segment", files={"image": as_file(picture)}, data={"labels": LABELS, "format": "overlay"}
    ).raise_for_status()
    painted = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (painted == np.asarray(overlay(picture, expected(segmenter, picture, {})))).all()


def test_json_wins_where_a_client_takes_both(client):
    body = {"image": base64.b64encode(as_file(scene())).decode(), "labels": "sand"}
    for accept in ("image/png, application/json", "image/png, */*"):
        answer = client.post("/v1/segment", json=body, headers={"accept": accept})
        assert answer.headers["content-type"] == "application/json"


def test_pictures_that_wait_are_computed_together_with_the_results_of_one_by_one(client, segmenter, monkeypatch):
    # The model sees the first three at one size; the fourth has another size, the last another question.
    wide = scene(128, 96)
    asked = [(wide, {}), (scene(256, 192), {}), (scene(160, 120), {}), (scene(96, 96), {}), (wide, QUESTIONS[1])]
    batches, may_go_on = [], threading.Event()
    call = type(segmenter).__call__

    def held(self, pictures, *arguments, **options):
        batches.append(len(pictures))
        assert may_go_on.wait(60)
        return call(self, pictures, *arguments, **options)

    def ask(one):
        picture, question = one
        body = {"image": base64.b64encode(as_file(picture)).decode(), "labels": LABELS, **question}
        return client.post("/v1/segment", json=body).raise_for_status().json()

    with monkeypatch.context() as patched, ThreadPoolExecutor(len(asked) + 1) as threads:
        patched.setattr(type(segmenter), "__call__", held)
        first = threads.submit(ask, (scene(64, 64), {}))
        wait_until(lambda: batches)
        answers = [threads.submit(ask, one) for one in asked]
        wait_until(lambda: "\nmaskadapter_queue_pictures 5.0\n" in client.get("/metrics").text)
        may_go_on.set()
        first.result()
        answers = [answer.result() for answer in answers]
    assert batches[0] == 1
    assert sorted(batches[1:]) == [1, 1, 3]
    for (picture, question), answer in zip(asked, answers, strict=True):
        assert_same(answer, expected(segmenter, picture, question), noise=picture.width * picture.height // 1000)


def test_what_the_embedded_model_does_not_know_brings_a_warning_with_the_command_that_helps(
    client, segmenter, monkeypatch
):
    size = {"shortest_edge": 192, "longest_edge": 320}  # the one that it was trained at
    monkeypatch.setattr(segmenter.processor.image_processor, "size", size)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    unknown = client.post("/v1/segment", files={"image": as_file(noise)}, data={"labels": LABELS}).json()
    known = client.post("/v1/segment", files={"image": as_file(scene(384, 384))}, data={"labels": LABELS}).json()
    assert "maskadapter serve --model fcclip-large" in unknown["warnings"][0]
    assert known["warnings"] == []


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"height": 96, "width": 160}},
        {"size": {"shortest_edge": 64, "longest_edge": 160}},
        {"size": {"longest_edge": 128}},
        {"do_resize": False},
    ],
)
@pytest.mark.parametrize("size", [(128, 96), (40, 300), (100, 100)])
def test_the_size_at_which_pictures_go_together_is_that_at_which_the_model_sees_them(segmenter, options, size):
    processor = copy.deepcopy(segmenter.processor)
    for name, value in options.items():
        setattr(processor.image_processor, name, value)
    service = Service(segmenter)
    service.segmenter = SimpleNamespace(processor=processor)
    picture = scene(*size)
    height, width = service._model_size(picture)
    inside = processor(images=[picture], return_tensors="np")["pixel_mask"][0]
    assert (inside.any(axis=1).sum(), inside.any(axis=0).sum()) == (height, width)


@pytest.mark.parametrize(("size", "form"), [((1, 1), "overlay"), ((1, 400), "json"), ((400, 1), "png")])
def test_tiny_and_thin_pictures_are_pictures(client, size, form):
    image = Image.new("RGB", size, (200, 180, 120))
    answer = client.post("/v1/segment", files={"image": as_file(image)}, data={"labels": "sand", "format": form})
    assert answer.status_code == 200, answer.text


def test_labels_in_any_letters_are_answered_as_they_came(client):
    labels = ["沙子", "вода", "étoile 🌟"]
    answer = client.post("/v1/segment", files={"image": as_file(scene())}, data={"labels": labels})
    assert answer.raise_for_status().json()["labels"] == labels
    data = {"labels": labels, "format": "overlay"}
    assert client.post("/v1/segment", files={"image": as_file(scene())}, data=data).status_code == 200


def test_a_name_that_the_text_tower_cannot_read_is_refused(client):
    answer = client.post("/v1/segment", files={"image": as_file(scene())}, data={"labels": "star " * 90})
    assert answer.status_code == 422
    assert "shorten the class name" in detail(answer)
