"""Label Studio's brush encoding, against a decoder of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_maskadapter.exchange.label_studio import decode_brush, encode_brush


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


def test_what_is_not_wholly_transparent_lies_inside_as_in_label_studio():
    fields = [(8, 32), (7, 5), (2, 4), (3, 4), (7, 4), (15, 4)]  # two pixels
    fields += [(0, 1), (0, 2), (7, 3), *((value, 8) for value in (9, 9, 9, 1, 9, 9, 9, 0))]  # eight single values
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


def test_runs_beyond_the_last_pixel_are_refused():
    encoded = encode_brush(np.ones((4, 5), dtype=bool))
    with pytest.raises(ValueError, match="go on after the last of its 64 values"):
        decode_brush(encode_brush(np.ones((4, 4), dtype=bool))[:4] + encoded[4:], (4, 4))
    with pytest.raises(ValueError, match="goes on after the last of its 80 values"):
        decode_brush([*encoded, 9], (4, 5))
    assert decode_brush([*encoded, 0], (4, 5)).all()  # Label Studio itself may write a spare zero
