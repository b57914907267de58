"""What Prometheus is told."""

import re

import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from hf_maskadapter.serving.metrics import Metrics  # noqa: E402
from support.service import as_file, scene  # noqa: E402


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_and_pictures_are_counted_and_no_label_stands_in_them(client):
    before = samples(client.get("/metrics").text)
    for labels in ("secret word", "secret word, secret word"):
        client.post("/v1/segment", files={"image": as_file(scene(96, 16))}, data={"labels": labels})
    answer = client.get("/metrics")
    after = samples(answer.text)

    def grown(name, **labels):
        key = (name, *sorted(labels.items()))
        return after[key] - before.get(key, 0)

    assert grown("maskadapter_requests_total", path="/v1/segment", status="200") == 1
    assert grown("maskadapter_requests_total", path="/v1/segment", status="422") == 1
    assert grown("maskadapter_request_seconds_count", path="/v1/segment") == 2
    assert grown("maskadapter_pictures_total") == 1
    assert grown("maskadapter_batch_pictures_count") == 1
    assert grown("maskadapter_queue_seconds_count") == 1
    assert grown("maskadapter_model_seconds_total") > 0
    assert after["maskadapter_requests_in_progress",] == after["maskadapter_queue_pictures",] == 0
    assert after["maskadapter_queue_bytes",] == 0
    assert "secret" not in answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_the_time_of_a_picture_follows_the_last_batches():
    metrics = Metrics()
    metrics.computed(4, [0.0] * 4, 2.0)
    assert metrics.seconds_each == 0.5
    metrics.computed(1, [0.0], 1.5)
    assert metrics.seconds_each == pytest.approx(0.5 + 0.2 * (1.5 - 0.5))


def test_paths_are_those_of_the_application_so_that_strangers_make_no_numbers(client):
    for number in range(20):
        client.get(f"/nothing/{number}")
    paths = set(re.findall(r'maskadapter_requests_total{path="([^"]*)"', client.get("/metrics").text))
    assert paths <= {
        "/v1/segment",
        "/v1/classify",
        "/v1/models",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/health",
        "/setup",
        "/predict",
        "/webhook",
        "(no such path)",
    }
    assert "(no such path)" in paths
