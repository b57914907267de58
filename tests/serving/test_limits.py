"""A service that is full, slow, left alone by its clients, or locked."""

import base64
import contextlib
import logging
import socket
import threading
import time

import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from concurrent.futures import ThreadPoolExecutor  # noqa: E402

from hf_maskadapter.model.segments import Segments  # noqa: E402
from hf_maskadapter.model.vocabulary import Vocabulary  # noqa: E402
from hf_maskadapter.serving.limits import QueueOptions, RequestLimits, ServiceLimits  # noqa: E402
from hf_maskadapter.serving.service import Service  # noqa: E402
from support.service import as_file, detail, running, scene, wait_until  # noqa: E402

FILES = {"image": as_file(scene())}
ASKED = {"files": FILES, "data": {"labels": "secret word, sand"}}


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_are_none_are_refused(number):
    for kind, name in (
        (RequestLimits, "time_limit"),
        (RequestLimits, "max_megapixels"),
        (QueueOptions, "queue_megabytes"),
    ):
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be a number above 0"):
            kind(**{name: number})


class HeldService(Service):
    """A service whose model waits to be let, and finds nothing."""

    def __init__(self, segmenter, *, held=True, fault=None, **options):
        limits = {kind: {name: options.pop(name) for name in list(options) if hasattr(kind, name)} for kind in KINDS}
        request, queue = (kind(**limits[kind]) for kind in KINDS)
        super().__init__(segmenter, limits=ServiceLimits(request=request, queue=queue), **options)
        self.may_go_on, self.computed, self.fault = threading.Event(), [], fault
        if not held:
            self.may_go_on.set()

    def _compute(self, works):
        self.computed.append(len(works))
        assert self.may_go_on.wait(60)
        if self.fault is not None:
            raise self.fault
        vocabulary = Vocabulary.parse(["sand"])
        return [(Segments([], (work.picture.height, work.picture.width), vocabulary), ()) for work in works]


KINDS = (RequestLimits, QueueOptions)


@contextlib.contextmanager
def held(segmenter, **options):
    service = HeldService(segmenter, **options)
    with running(service) as client:
        try:
            yield service, client
        finally:
            service.may_go_on.set()


def test_a_full_queue_answers_503_with_retry_after_and_never_grows(segmenter):
    with held(segmenter, queue=3) as (service, client), ThreadPoolExecutor(3) as threads:
        accepted = [threads.submit(client.post, "/v1/segment", **ASKED) for _ in range(3)]
        wait_until(lambda: service.admission.in_use == 3)
        for _ in range(20):
            refused = client.post("/v1/segment", **ASKED)
            assert refused.status_code == 503
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert "3 requests are waiting already" in detail(refused)
            assert service.admission.in_use == 3
        assert client.get("/healthz").json() == {"status": "ok"}  # is answered however long the queue is
        service.may_go_on.set()
        assert [answer.result().status_code for answer in accepted] == [200] * 3
        assert client.post("/v1/segment", **ASKED).status_code == 200
        wait_until(lambda: service.admission.in_use == 0)


def test_a_refused_client_that_sends_a_long_body_still_reads_the_answer(segmenter):
    with held(segmenter, queue=1) as (service, client), ThreadPoolExecutor(1) as threads:
        threads.submit(client.post, "/v1/segment", **ASKED)
        wait_until(lambda: service.admission.in_use == 1)
        for _ in range(10):
            answer = client.post("/v1/segment", content=b"x" * 900_000, headers={"content-type": "image/png"})
            assert answer.status_code == 503
        service.may_go_on.set()


def test_memory_for_pictures_is_bounded(segmenter):
    # 128×96 pixels of three bytes, and the body, which is counted too.
    size = len(FILES["image"])
    with held(segmenter, queue_megabytes=2 * (3 * 128 * 96 + size + 1000) / 1e6) as (service, client):
        with ThreadPoolExecutor(2) as threads:
            accepted = [threads.submit(client.post, "/v1/segment", **ASKED) for _ in range(2)]
            wait_until(lambda: service.admission.reserved >= 2 * (3 * 128 * 96 + size))
            refused = client.post("/v1/segment", **ASKED)
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
            service.may_go_on.set()
            assert [answer.result().status_code for answer in accepted] == [200] * 2
        too_large = client.post("/v1/segment", files={"image": as_file(scene(256, 192))}, data={"labels": "sand"})
        assert too_large.status_code == 413
        assert "shrink the picture" in detail(too_large)


def test_a_result_that_takes_too_long_is_answered_with_504_and_gives_its_place_back(segmenter):
    with held(segmenter, time_limit=0.5) as (service, client):
        answer = client.post("/v1/segment", **ASKED)
        assert answer.status_code == 504
        assert "within 0.5 seconds" in detail(answer)
        assert service.admission.in_use == 0
        waiting = client.post("/v1/segment", **ASKED)  # behind the first, which the model still has
        assert waiting.status_code == 504
        service.may_go_on.set()
        assert client.post("/v1/segment", **ASKED).status_code == 200
        assert service.computed == [1, 1]  # what was given up while it waited was never computed


def test_a_body_that_does_not_arrive_is_answered_with_408(segmenter):
    with held(segmenter, time_limit=0.5, held=False) as (service, client):
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: service.admission.in_use == 0)


def test_a_client_that_leaves_frees_its_place_and_is_not_computed(segmenter):
    with held(segmenter, queue=2) as (service, client), ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.post, "/v1/segment", **ASKED)
        wait_until(lambda: service.computed)
        request = client.build_request("POST", "/v1/segment?labels=sand", content=FILES["image"])
        head = f"POST /v1/segment?labels=sand HTTP/1.1\r\nHost: x\r\nContent-Length: {len(FILES['image'])}\r\n"
        connection = socket.create_connection((request.url.host, request.url.port), timeout=10)
        connection.sendall(head.encode() + b"Content-Type: image/png\r\n\r\n" + FILES["image"])
        wait_until(lambda: len(service._queue) == 1)
        assert service.admission.in_use == 2
        connection.close()
        wait_until(lambda: service.admission.in_use == 1)
        assert len(service._queue) == 0
        service.may_go_on.set()
        assert first.result().status_code == 200
        assert service.computed == [1]


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"authorization": "Bearer my-key"}, True),
        ({"authorization": "bearer  my-key"}, True),
        ({"x-api-key": "my-key"}, True),
        ({"authorization": "Basic " + base64.b64encode(b"anyone:my-key").decode()}, True),
        ({}, False),
        ({"authorization": "Bearer my-kez"}, False),
        ({"authorization": "Bearer"}, False),
        ({"authorization": b"Bearer \xff"}, False),
        ({"authorization": "Basic my-key"}, False),
        ({"x-api-key": "my-key "[:3]}, False),
    ],
)
def test_a_key_is_asked_for_by_all_but_the_health_check_and_the_description(locked, headers, may):
    service, client = locked
    accepted = service.admission.accepted
    for answer in (client.post("/v1/segment", headers=headers, **ASKED), client.get("/v1/models", headers=headers)):
        assert answer.status_code == (200 if may else 401)
        if not may:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer KEY" in detail(answer)
    assert client.get("/metrics", headers=headers).status_code == (200 if may else 401)
    for path in ("/healthz", "/openapi.json", "/docs"):
        assert client.get(path, headers=headers).status_code == 200
    assert service.admission.accepted - accepted == int(may)


@pytest.fixture(scope="module")
def locked(segmenter):
    with held(segmenter, held=False, api_key="my-key") as both:
        yield both


def test_the_key_is_compared_in_constant_time(segmenter, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    with held(segmenter, held=False, api_key="my-key") as (_, client):
        assert client.get("/v1/models", headers={"x-api-key": "my-key"}).status_code == 401
    assert compared == [(b"my-key", b"my-key")]


def test_logs_hold_neither_labels_nor_pictures_nor_what_a_fault_says_nor_paths_that_there_are_not(segmenter, caplog):
    caplog.set_level(logging.DEBUG)
    fault = RuntimeError("secret word: it failed")
    with held(segmenter, held=False, fault=fault) as (_, client):
        failed = client.post(
            "/v1/segment?labels=secret%20word", content=FILES["image"], headers={"content-type": "image/png"}
        )
        assert failed.status_code == 500
        assert detail(failed) == "The service failed; its log tells where."
        client.post("/v1/segment", files=FILES, data={"labels": ["secret word", "secret word"]})
        client.get("/secret%20word")
    own = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    text = "\n".join(logging.Formatter().format(record) for record in own)
    assert "secret" not in text
    assert "POST /v1/segment 500" in text
    assert "a fault of the program, RuntimeError, at" in text
    assert "in _compute" in text
    assert "GET (no such path) 404" in text


def test_the_event_loop_answers_while_a_picture_is_read_and_while_the_model_computes(segmenter, monkeypatch):
    from hf_maskadapter.serving import service as module

    decode, reading = module.decode, threading.Event()

    def slow_decode(image):
        reading.set()
        time.sleep(0.5)
        return decode(image)

    monkeypatch.setattr(module, "decode", slow_decode)
    with held(segmenter) as (service, client), ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.post, "/v1/segment", **ASKED)
        assert reading.wait(30)
        assert client.get("/healthz").status_code == 200
        assert not service.computed
        wait_until(lambda: service.computed)
        assert client.get("/healthz").status_code == 200
        service.may_go_on.set()
        assert answer.result().status_code == 200


def test_a_service_that_stops_answers_what_it_accepted(segmenter):
    service = HeldService(segmenter)
    with ThreadPoolExecutor(4) as threads, running(service) as client:
        answers = [threads.submit(client.post, "/v1/segment", **ASKED) for _ in range(4)]
        wait_until(lambda: service.admission.in_use == 4)
        threading.Timer(0.5, service.may_go_on.set).start()
    assert [answer.result().status_code for answer in answers] == [200] * 4
    assert (service.admission.accepted, service.admission.answered) == (4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_that_leave_nothing_are_refused(kind):
    for name, default in vars(kind()).items():
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be "):
            kind(**{name: type(default)(0)})
