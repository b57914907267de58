"""Label Studio's brush encoding, against a decoder of its own, and its tasks."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_maskadapter.exchange import ExchangeError, read_results, write_results
from hf_maskadapter.exchange.label_studio import decode_brush, encode_brush
from hf_maskadapter.model.segments import Segment, Segments


class BitStream:
    """Bits of bytes, most significant first, one at a time."""

    def __init__(self, data):
        self.bits = (byte >> shift & 1 for byte in data for shift in range(7, -1, -1))

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value * 2 + next(self.bits)
        return value


def unpack(data) -> list[int]:
    """The values of thi.ng's rle-pack, as its documentation tells the format."""
    stream = BitStream(data)
    total, width = stream.read(32), stream.read(5) + 1
    sizes = [stream.read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = stream.read(1)
        count = stream.read(sizes[stream.read(2)]) + 1
        if repeated:
            values += [stream.read(width)] * count
        else:
            values += [stream.read(width) for _ in range(count)]
    return values


masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(bool, size))


@given(masks)
@settings(max_examples=60)
def test_encoded_masks_hold_every_pixel_as_rgba(mask):
    values = np.array(unpack(encode_brush(mask))).reshape(*mask.shape, 4)
    assert (values == np.where(mask, 255, 0)[..., None]).all()


@given(masks)
@settings(max_examples=60)
def test_decoding_undoes_encoding(mask):
    assert (decode_brush(encode_brush(mask), mask.shape) == mask).all()


@pytest.mark.parametrize("run", [1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 32768, 40000])
def test_runs_around_the_limits_of_the_field_sizes_are_kept(run):
    mask = np.zeros((1, 2 * run + 1), dtype=bool)
    mask[0, run : 2 * run] = True
    encoded = encode_brush(mask)
    assert (np.array(unpack(encoded))[3::4] == np.where(mask[0], 255, 0)).all()
    assert (decode_brush(encoded, mask.shape) == mask).all()


def test_bytes_are_those_of_a_mask_that_label_studio_exported():
    # Beginning of a mask of 3332×2527 pixels in a public export of Label Studio
    # (huggingface.co/datasets/alkzar90/cell_benchmark, label_JSON.json), which begins with background.
    exported = [
        2,
        1,
        233,
        240,
        57,
        27,
        255,
        255,
        255,
        0,
        255,
        255,
        224,
        31,
        255,
        252,
        3,
        255,
        255,
        128,
        127,
        255,
        240,
        15,
    ]
    mask = np.zeros((2527, 3332), dtype=bool)
    mask[2000:2020, 2000:2020] = True
    assert encode_brush(mask)[: len(exported)] == exported


def test_single_values_and_half_opaque_pixels_of_other_encoders_are_read():
    fields = [(8, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4)]  # two pixels
    fields += [(0, 1), (0, 2), (7, 3), *((value, 8) for value in (9, 9, 9, 200, 9, 9, 9, 100))]  # eight single values
    bits = "".join(f"{number:0{width}b}" for number, width in fields)
    data = [int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8)]
    assert decode_brush(data, (1, 2)).tolist() == [[True, False]]


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: [1, *data[1:]], lambda data: data[:5]])
def test_damaged_masks_are_refused(damage):
    mask = np.zeros((300, 300), dtype=bool)
    mask[100:150, 50:200] = True
    with pytest.raises(ValueError, match="brush mask"):
        decode_brush(damage(encode_brush(mask)), (300, 300))


def test_mask_of_a_large_photograph_is_kept():
    rows, columns = np.mgrid[:1500, :2000]
    mask = (rows - 750) ** 2 + (columns - 1000) ** 2 < 500**2
    assert (decode_brush(encode_brush(mask), mask.shape) == mask).all()


def test_tasks_have_the_form_that_label_studio_documents(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary, model="our model")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[1]["data"]["image"] == "/data/local-files/?d=sub/b%20%C3%BC.png"
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "our model"
    assert prediction["score"] == pytest.approx(0.5)
    region = prediction["result"][1]
    assert region["type"] == "brushlabels"
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (60, 40, 0)
    assert region["value"]["format"] == "rle"
    assert region["value"]["brushlabels"] == ["dog & <cat>"]
    assert len({entry["id"] for entry in prediction["result"]}) == 3


def test_labeling_interface_has_the_names_that_the_tasks_use(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary)
    root = ElementTree.parse(tmp_path / "label_config.xml").getroot()
    region = json.loads((tmp_path / "tasks.json").read_text())[0]["predictions"][0]["result"][0]
    brush, image = root.find("BrushLabels"), root.find("Image")
    assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
    assert [label.get("value") for label in brush] == list(vocabulary.names)


def test_address_of_the_pictures_can_be_set(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary, image_prefix="https://example.org/pictures/")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "https://example.org/pictures/a.jpg"


def test_corrections_come_before_predictions_in_an_export(tmp_path, vocabulary):
    whole = Segment.of_class(vocabulary, 0, np.ones((10, 20), dtype=bool))
    result = Segments([whole], (10, 20), vocabulary, picture="a.png")
    write_results(tmp_path, "label-studio", [result], vocabulary)
    path = tmp_path / "tasks.json"
    tasks = json.loads(path.read_text())
    corrected = {
        "type": "polygonlabels",
        "original_width": 20,
        "original_height": 10,
        "value": {"points": [[10, 20], [40, 20], [40, 60], [10, 60]], "polygonlabels": ["dog & <cat>"]},
    }
    choice = {"type": "choices", "value": {"choices": ["fine"]}}
    tasks[0]["annotations"] = [{"result": [corrected, choice]}]
    tasks[0]["data"] = {"image": "/data/local-files/?d=sub/a%20b.png"}
    path.write_text(json.dumps(tasks))
    (result,) = read_results(path, "label-studio").results
    (segment,) = result.segments
    assert (result.picture, segment.class_id) == ("sub/a b.png", 1)
    assert segment.mask[2:6, 2:8].all()
    assert not segment.mask[7:].any()


def test_export_without_the_labeling_interface_has_the_classes_that_occur(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary)
    (tmp_path / "label_config.xml").unlink()
    assert read_results(tmp_path, "label-studio").vocabulary.names == vocabulary.names[:2]


def test_task_of_another_size_is_refused_by_its_number(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary)
    path = tmp_path / "tasks.json"
    path.write_text(path.read_text().replace('"original_width":17', '"original_width":18'))
    with pytest.raises(ExchangeError, match="task 2"):
        list(read_results(path, "label-studio").results)
