"""Label Studio asks as its own client does, and gets brush regions that it can show."""

import base64
import http.server
import json
import threading

import numpy as np
import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from hf_maskadapter.exchange.label_studio_brush import decode_brush  # noqa: E402
from hf_maskadapter.serving.service import Service  # noqa: E402
from support.service import as_file, detail, running, scene  # noqa: E402

PICTURE = as_file(scene())
ADDRESS = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
LABELS = (
    '<Label value="Beach" predicted_values="sand"/><Label value="Sea" alias="sea" predicted_values="water, ocean"/>'
    '<Label value="dotted yellow star"/><Label value="plain cyan triangle"/>'
)
SYNONYMS = ["sand", ["water", "ocean"], "dotted yellow star", "plain cyan triangle"]
TEXTS = ["Beach", "sea", "dotted yellow star", "plain cyan triangle"]


def interface(labels=LABELS, **attributes):
    further = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return (
        '<View><Image name="img" value="$photo"/>'
        f'<BrushLabels name="brush" toName="img"{further}>{labels}</BrushLabels></View>'
    )


def request(config=None, address=ADDRESS, **changes):
    """What Label Studio sends, with all that it adds."""
    return {
        "tasks": [{"id": 7, "data": {"photo": address}, "meta": {}, "is_labeled": False}],
        "model_version": "miniature",
        "project": "3.1700000000",
        "label_config": interface() if config is None else config,
        "params": {"login": None, "password": None, "context": None},
    } | changes


def expected(segmenter, **options):
    return segmenter(scene(), candidate_labels=SYNONYMS, return_segments=True, **options)


def assert_same(prediction, segments):
    assert len(prediction["result"]) == len(segments) > 0
    for region, segment in zip(prediction["result"], segments, strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("brush", "img", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (segments.width, segments.height)
        assert region["value"]["format"] == "rle"
        assert region["value"]["brushlabels"] == [TEXTS[segment.class_id]]
        assert region.get("score") == (None if segment.score is None else pytest.approx(segment.score, abs=1e-5))
        assert np.array_equal(decode_brush(region["value"]["rle"], segments.size), segment.mask)


def test_it_is_up(client):
    assert client.get("/health").json() == {"status": "UP", "model_class": "MaskAdapter"}


def test_a_project_is_connected_and_predicted_as_the_pipeline_does(client, segmenter):
    asked = {"project": "3.1700000000", "schema": interface(), "hostname": "http://127.0.0.1:1", "access_token": "x"}
    assert client.post("/setup", json=asked).json() == {"model_version": "miniature"}
    segments = expected(segmenter, subtask="panoptic")
    for body in (request(), request(label_config=None)):
        (prediction,) = client.post("/predict", json=body).raise_for_status().json()["results"]
        assert prediction["model_version"] == "miniature"
        assert prediction["score"] == pytest.approx(np.mean([segment.score for segment in segments]), abs=1e-5)
        assert_same(prediction, segments)


def test_a_project_that_was_not_set_up_must_bring_its_interface(client):
    answer = client.post("/predict", json=request(label_config=None, project="99.1"))
    assert answer.status_code == 422
    assert "label_config" in detail(answer)


def test_the_interface_says_how_to_segment(client, segmenter):
    config = interface(model_task="semantic")
    (prediction,) = client.post("/predict", json=request(config)).raise_for_status().json()["results"]
    assert "score" not in prediction
    assert_same(prediction, expected(segmenter))

    config = interface(model_task="instance", model_score_threshold="0.2")
    (prediction,) = client.post("/predict", json=request(config)).raise_for_status().json()["results"]
    assert_same(prediction, expected(segmenter, subtask="instance", threshold=0.2))


def test_things_are_named_by_the_interfaces_own_labels(client, segmenter):
    config = interface(model_things="sea, dotted yellow star")
    vocabulary = expected(segmenter).vocabulary.with_things(["water", "dotted yellow star"])
    segments = segmenter(scene(), candidate_labels=vocabulary, subtask="panoptic", return_segments=True)
    (prediction,) = client.post("/predict", json=request(config)).raise_for_status().json()["results"]
    assert_same(prediction, segments)


def test_every_task_of_a_request_gets_its_prediction_in_order(client, segmenter):
    other = scene(96, 64)
    addresses = [ADDRESS, "data:image/png;base64," + base64.b64encode(as_file(other)).decode()] * 5
    tasks = [{"id": number, "data": {"photo": address}} for number, address in enumerate(addresses)]
    results = client.post("/predict", json=request(tasks=tasks)).raise_for_status().json()["results"]
    sizes = [(result["result"][0]["original_width"], result["result"][0]["original_height"]) for result in results]
    assert sizes == [(128, 96), (96, 64)] * 5
    assert client.post("/predict", json=request(tasks=[])).json() == {"results": []}


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "START_TRAINING", "PROJECT_UPDATED"])
def test_notes_are_taken_and_nothing_is_trained(client, action):
    answer = client.post("/webhook", json={"action": action, "project": {"id": 3}})
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (request("<View"), "The labeling interface cannot be read"),
        (request("<View><Image name='img' value='$photo'/></View>"), "no BrushLabels for an Image"),
        (request(interface(labels="")), "has no Label"),
        (request(interface(labels='<Label value="a"/><Label value="a"/>')), "holds a label twice"),
        (request(interface(labels="<Label/>")), "has no value"),
        (request(interface().replace("$photo", "photo")), 'as in value="$image"'),
        (request(interface().replace("$photo", "$image")), "Task 7: its data have no picture's address under 'image'"),
        (request(interface(model_task="depth")), "model_task must be one of"),
        (request(interface(model_score_threshold="high")), "model_score_threshold must be a number"),
        (request(interface(model_task="semantic", model_score_threshold="0.5")), "Task 7: threshold"),
        (request(interface(model_things="cat")), "model_things holds 'cat'"),
        (request(interface(model_size="3")), "attribute model_size"),
        (request(address="http://127.0.0.1:9/a.png"), "Task 7: it lies at 127.0.0.1"),
        (request(address="file:///etc/passwd"), "Task 7: it lies at file:///etc/passwd, which is not fetched"),
        (request(params={"context": {"result": [{"type": "keypointlabels"}]}}), "switch them off"),
        (request(tasks={"id": 1}), "a list of Label Studio's tasks"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(client, body, sentence):
    answer = client.post("/predict", json=body)
    assert answer.status_code == 422, answer.text
    assert sentence in detail(answer)


def test_a_refusal_may_quote_half_a_character(client):
    body = json.dumps(request(tasks=[{"id": "\ud800", "data": {}}])).encode()
    answer = client.post("/predict", content=body)
    assert (answer.status_code, "Task \\ud800: its data" in answer.text) == (422, True)


def test_an_interface_without_a_brush_is_told_when_it_is_connected(client):
    answer = client.post("/setup", json={"project": "3.1", "schema": "<View/>"})
    assert (answer.status_code, "no BrushLabels" in detail(answer)) == (422, True)
    assert "schema" in detail(client.post("/setup", json={"project": "3.1"}))
    assert client.post("/setup", content=b"{").status_code == 400


class Studio(http.server.BaseHTTPRequestHandler):
    """Label Studio's uploads, for who has its token."""

    def do_GET(self):
        allowed = self.headers.get("Authorization") == "Token secret"
        self.send_response(200 if allowed and self.path == "/data/upload/1/scene.png" else 401)
        self.end_headers()
        if allowed:
            self.wfile.write(PICTURE)

    def log_message(self, *_):
        pass


def test_uploads_come_from_a_label_studio_that_asks_for_its_token(segmenter, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Studio)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("LABEL_STUDIO_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret")
        with running(Service(segmenter, api_key="word")) as client:
            asked = request(address="/data/upload/1/scene.png")
            assert client.post("/predict", json=asked).status_code == 401
            # Label Studio sends the key as the password of a user, whatever its name
            answer = client.post("/predict", json=asked, auth=("anybody", "word"))
            assert_same(answer.raise_for_status().json()["results"][0], expected(segmenter, subtask="panoptic"))
            answer = client.post("/predict", json=request(address="/data/upload/1/other.png"), auth=("anybody", "word"))
            assert (answer.status_code, "Task 7" in detail(answer), "status 401" in detail(answer)) == (424, True, True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
