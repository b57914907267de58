"""What the service does not take, and what it says then."""

import base64
import json
import struct
import zlib

import numpy as np
import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from PIL import Image  # noqa: E402

from support.service import as_file, detail, scene  # noqa: E402

PICTURE = as_file(scene())
TEXT = base64.b64encode(PICTURE).decode()
WHOLE = {"image": TEXT, "labels": "sand"}
FORM = "multipart/form-data; boundary=x"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width, height):
    """A PNG of that size whose pixels are missing: only who decodes it notices."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def assert_refused(answer, status, sentence):
    assert answer.status_code == status, answer.text
    assert sentence in detail(answer)
    assert detail(answer).endswith(".")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"labels": []}, "labels: "),
        ({"labels": {"a": 1}}, "labels: expected names separated by commas, or a list with a name"),
        ({"labels": ["sand", 3]}, "labels: expected names separated by commas, or a list with a name"),
        ({"labels": ["sand", "Sand"]}, "given twice"),
        ({"labels": ", ".join(f"name {n}" for n in range(1001))}, "more than 1000 names"),
        ({"threshold": 0.5}, "choose task panoptic or instance"),
        ({"threshold": 1.5, "task": "panoptic"}, "threshold: "),
        ({"threshold": "high", "task": "panoptic"}, "threshold: "),
        ({"overlap_threshold": 0.5, "task": "instance"}, "is for task panoptic, not instance"),
        ({"task": "nonsense"}, "task: "),
        ({"format": "gif"}, "format: "),
        ({"mask_embedding": "best"}, "mask_embedding: "),
        ({"things": ["cat"]}, "does not have"),
        ({"colour": "red"}, "colour: "),
        ({"image": None}, "image: "),
    ],
)
def test_fields_that_cannot_be_used_are_told(client, fields, sentence):
    assert_refused(client.post("/v1/segment", json=WHOLE | fields), 422, sentence)


@pytest.mark.parametrize(
    "mask",
    [[1, 1, 30, 1, 30, 30], {"size": [96, 128], "counts": [0.5, 9]}, {"mask": "AAAA"}, "AAAA", None],
    ids=["polygon", "counts", "object", "text", "null"],
)
def test_masks_in_no_known_form_are_told_all_forms(client, mask):
    answer = client.post("/v1/classify", json=WHOLE | {"masks": [mask]})
    assert_refused(answer, 422, 'masks.0: expected a run-length encoding, {"size": [height, width], "counts": ...}; a')


def test_missing_and_repeated_fields_are_told(client):
    assert_refused(client.post("/v1/segment", json={"labels": "sand"}), 422, "image: ")
    assert_refused(client.post("/v1/segment", json={"image": TEXT}), 422, "labels: ")
    image = ("image", PICTURE)
    assert_refused(client.post("/v1/segment", files=[image]), 422, "labels: ")
    assert_refused(client.post("/v1/segment", files=[image, image], data={"labels": "sand"}), 422, "one picture, got 2")
    other = ("picture", PICTURE)
    assert_refused(client.post("/v1/segment", files=[image, other], data={"labels": "sand"}), 422, "'picture' is no")
    twice = {"labels": "sand", "task": ["semantic", "panoptic"]}
    assert_refused(client.post("/v1/segment", files=[image], data=twice), 422, "'task' is given 2 times")
    assert_refused(client.post("/v1/segment", json=WHOLE, params={"task": "panoptic"}), 422, "stands in the address")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "sentence"),
    [
        ("application/json", b"{", 400, "no JSON"),
        ("application/json", b"", 400, "no JSON"),
        ("application/json", b"[" * 100_000, 400, "no JSON"),
        ("application/json", b'{"labels": "\\ud800", "image": ""}', 400, "no JSON"),
        ("application/json", b"[]", 422, "body: "),
        ("application/json", json.dumps(WHOLE | {"image": "!!"}).encode(), 400, "no Base64"),
        ("application/json", json.dumps(WHOLE | {"image": "é"}).encode(), 400, "no Base64"),
        ("text/plain", PICTURE, 415, "'text/plain' cannot be read"),
        ("application/x-www-form-urlencoded", b"labels=sand", 415, "send a form"),
        ("", PICTURE, 415, "'unknown' cannot be read"),
        ("multipart/form-data", b"--x--", 400, "malformed"),
        (FORM, b"nothing", 400, "malformed"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\nsand', 400, "cut off"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\n\xff\r\n--x--', 400, "not UTF-8"),
        (FORM, b"--x\r\n\r\nsand\r\n--x--", 400, "malformed"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 2000 + b"--x--", 413, "too many parts"),
    ],
)
def test_bodies_that_cannot_be_read_are_told(client, content_type, body, status, sentence):
    answer = client.post("/v1/segment", content=body, headers={"content-type": content_type})
    assert_refused(answer, status, sentence)


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"", 415, "known format"),
        (b"nothing", 415, "known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", 415, "known format"),  # would be run by Ghostscript
        (PICTURE[: len(PICTURE) // 2], 422, "truncated"),
        (as_file(scene(), "JPEG")[:-400], 422, "truncated"),
        (png_of(100, 100), 422, "cannot be read"),
        (png_of(5001, 5000), 413, "5001x5000 pixels"),
        (png_of(100_000, 100_000), 413, "too many pixels"),
        (as_file(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF"), 422, "not finite"),
    ],
)
def test_pictures_that_cannot_be_used_are_told(client, content, status, sentence):
    answer = client.post("/v1/segment", files={"image": content}, data={"labels": "sand"})
    assert_refused(answer, status, sentence)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client, monkeypatch):
    bomb = as_file(Image.new("L", (5001, 5000)), compress_level=9)
    assert len(bomb) < 40_000
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    assert_refused(client.post("/v1/segment", files={"image": bomb}, data={"labels": "sand"}), 413, "5001x5000")


def test_a_body_that_is_too_large_is_refused_when_it_is_announced_and_when_it_arrives(client):
    headers = {"content-type": "image/png"}
    large = b"x" * 20_000_001
    assert_refused(client.post("/v1/segment", content=large, headers=headers), 413, "larger than 20000000 bytes")
    pieces = (large[:1_000_000] for _ in range(21))  # of unknown length
    assert_refused(client.post("/v1/segment", content=pieces, headers=headers), 413, "larger than 20000000 bytes")


def test_addresses_and_methods_that_there_are_not_answer_in_json_too(client):
    for answer, status in ((client.get("/v2"), 404), (client.get("/v1/segment"), 405)):
        assert answer.status_code == status
        assert detail(answer)


def test_a_health_check_may_ask_for_the_head_alone(client):
    answer = client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_nothing_of_what_was_refused_is_kept(client, service):
    assert (service.admission.in_use, service.admission.reserved) == (0, 0)
    assert service.admission.accepted == service.admission.answered
