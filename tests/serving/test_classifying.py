"""Masks of one's own in, labels out."""

import base64
import json

import numpy as np
import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx", "pycocotools")

from PIL import Image  # noqa: E402
from pycocotools import mask as coco  # noqa: E402

from hf_maskadapter import Vocabulary  # noqa: E402
from hf_maskadapter.model.mask_classification import classify_masks  # noqa: E402
from support.service import LABELS, as_file, detail, mask_of, scene  # noqa: E402

STAR, SAND = np.zeros((96, 128), dtype=bool), np.zeros((96, 128), dtype=bool)
STAR[20:60, 30:80] = True
SAND[70:90, 5:120] = True
MASKS = np.stack([STAR, SAND])


def run_lengths(mask, compressed=True):
    if compressed:
        encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    counts, inside = [0], False
    for pixel in mask.T.ravel():
        if pixel != inside:
            counts.append(0)
            inside = bool(pixel)
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def polygon(mask):
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [[float(value) for value in (left, top, right, top, right, bottom, left, bottom)]]


def picture_of(mask):
    return as_file(Image.fromarray(mask.astype(np.uint8) * 255))


def base64_of(content):
    return base64.b64encode(content).decode()


FORMS = {
    "compressed": [run_lengths(mask) for mask in MASKS],
    "lists": [run_lengths(mask, compressed=False) for mask in MASKS],
    "polygons": [polygon(mask) for mask in MASKS],
    "pictures": [{"png": base64_of(picture_of(mask))} for mask in MASKS],
    "a map": [{"png": base64_of(as_file(Image.fromarray((STAR + 2 * SAND).astype(np.uint8))))}],
    "mixed": [polygon(STAR), {"png": base64_of(picture_of(SAND))}],
}


@pytest.fixture(scope="module")
def expected(segmenter):
    vocabulary = Vocabulary.parse(LABELS)
    return classify_masks(segmenter.model, scene(), MASKS, vocabulary, segmenter.processor)


def assert_classified(answer, expected):
    segments = answer.raise_for_status().json()["segments"]
    assert [segment["label_id"] for segment in segments] == [one.label_id for one in expected]
    assert [segment["label"] for segment in segments] == [one.label for one in expected]
    for segment, one, mask in zip(segments, expected, MASKS, strict=True):
        assert segment["score"] == pytest.approx(one.score, abs=1e-5)
        assert (mask_of(segment) == mask).all()
        assert segment["area"] == mask.sum()


@pytest.mark.parametrize("form", FORMS)
def test_each_mask_gets_a_label_and_a_score_in_the_order_of_the_masks(client, expected, form):
    body = {"image": base64_of(as_file(scene())), "labels": LABELS, "masks": FORMS[form]}
    assert_classified(client.post("/v1/classify", json=body), expected)


def test_masks_of_a_form_are_files_or_json(client, expected):
    image = ("image", ("scene.png", as_file(scene())))
    masks = [("mask", (f"{number}.png", picture_of(mask))) for number, mask in enumerate(MASKS)]
    data = {"labels": LABELS}
    assert_classified(client.post("/v1/classify", files=[image, *masks], data=data), expected)
    as_json = data | {"masks": json.dumps(FORMS["compressed"])}
    assert_classified(client.post("/v1/classify", files=[image], data=as_json), expected)


def test_an_answer_may_be_a_picture_of_ids(client):
    body = {"image": base64_of(as_file(scene())), "labels": LABELS, "masks": FORMS["compressed"], "format": "png"}
    import io

    ids = np.asarray(Image.open(io.BytesIO(client.post("/v1/classify", json=body).raise_for_status().content)))
    assert (ids == STAR + 2 * SAND).all()


@pytest.mark.parametrize(
    ("masks", "status", "sentence"),
    [
        ([], 422, "there is none"),
        ([run_lengths(np.zeros((96, 128), dtype=bool))], 422, "Mask 0 is empty"),
        ([run_lengths(np.ones((96, 127), dtype=bool))], 422, "this one is 96x128"),
        ([polygon(STAR), {"png": base64_of(picture_of(np.ones((9, 8), dtype=bool)))}], 422, "Mask 1: it has 8x9"),
        ([{"size": [96, 128], "counts": [5]}], 422, "fill its size"),
        ([{"size": [96, 128], "counts": "~"}], 422, "broken"),
        ([[[1, 2, 3]]], 422, "three points"),
        ([[[1e300, 2, 3, 4, 5, 6]]], 422, "pixels"),
        ([{"png": "!"}], 400, "no Base64"),
        ([{"png": base64_of(b"nothing")}], 415, "known format"),
        ([{"png": base64_of(picture_of(STAR)[:-40])}], 422, "broken"),
        (["/etc/hostname"], 422, "masks.0"),
        ([polygon(STAR)] * 101, 422, "more than 100"),
        ([[[float(n % 90) for n in range(60_000)]]], 422, "more than 20000 corners"),
        ([[[0, 0, 9, 0, 9, 9]] * 1001], 422, "1000 polygons"),
    ],
)
def test_masks_that_cannot_be_used_are_refused_with_a_sentence(client, masks, status, sentence):
    body = {"image": base64_of(as_file(scene())), "labels": LABELS, "masks": masks}
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == status, answer.text
    assert sentence in detail(answer)
