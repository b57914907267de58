"""Maps from files whose format changes values: refused, or warned of where that cannot be told."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, features

from hf_maskadapter.model.label_maps import label_values
from hf_maskadapter.model.lossy_formats import is_lossy
from hf_maskadapter.model.pictures import open_picture

MAP = np.random.default_rng(0).integers(0, 5, (8, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
LOSSY, LOSSLESS = {"quality": 80}, {"lossless": True}

pytestmark = pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")


def saved(kind, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(MAP).save(stream, kind, **options)
    return stream.getvalue()


def animated(options) -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(MAP), Image.fromarray(255 - MAP)]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], **options)
    return stream.getvalue()


WAYS = {
    "not decoded": lambda content, path: Image.open(io.BytesIO(content)),
    "read here": lambda content, path: open_picture(content),
    "decoded, from a file": lambda content, path: loaded(path),
}


def loaded(path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


@pytest.mark.parametrize("way", WAYS)
def test_a_lossy_webp_is_refused_and_a_lossless_one_read(way, tmp_path):
    path = tmp_path / "map.webp"
    path.write_bytes(saved("WEBP", **LOSSY))
    with pytest.raises(ValueError, match="is a lossy WebP, which changes values: save maps as PNG"):
        label_values(WAYS[way](path.read_bytes(), path))
    path.write_bytes(saved("WEBP", **LOSSLESS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_lossy(WAYS[way](path.read_bytes(), path)) is False


@pytest.mark.parametrize(("options", "expected"), [(LOSSY, True), (LOSSLESS, False)])
def test_of_an_animation_the_frames_tell(options, expected):
    assert is_lossy(Image.open(io.BytesIO(animated(options)))) is expected


def test_a_webp_whose_file_has_gone_is_warned_of():
    image = Image.open(io.BytesIO(saved("WEBP", **LOSSLESS)))
    image.load()
    with pytest.warns(UserWarning, match="opened from a WebP file, which usually changes values"):
        label_values(image)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("quality", [60, 100])
def test_an_avif_is_warned_of_since_nothing_tells_whether_it_is_lossless(quality):
    with pytest.warns(UserWarning, match="opened from an AVIF file"):
        values = label_values(Image.open(io.BytesIO(saved("AVIF", quality=quality))))
    assert (values == MAP).all() == (quality == 100)


@pytest.mark.parametrize(("kind", "expected"), [("JPEG", True), ("PNG", False), ("BMP", False)])
def test_other_formats_are_known(kind, expected):
    assert is_lossy(Image.open(io.BytesIO(saved(kind)))) is expected


def test_masks_from_a_lossy_webp_that_are_no_one_mask_are_refused():
    from hf_maskadapter.model.mask_collections import read_masks

    with pytest.raises(ValueError, match="neither one mask of black and white nor a map, since it is a lossy WebP"):
        read_masks(open_picture(saved("WEBP", **LOSSY)), MAP.shape)
