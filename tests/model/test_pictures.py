"""Any picture is read as a viewer shows it."""

import base64
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, PngImagePlugin

from hf_maskadapter.model.pictures import as_viewer_shows, read_picture
from support.pictures import EXIF_ORIENTATION, SIDEWAYS, as_file, quarters, random_pixels


def test_gray_pictures_of_1_8_and_16_bits_and_floats():
    gray = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    expected = np.repeat(gray[..., None], 3, axis=-1)
    sixteen = gray.astype(np.uint16) * 257
    pictures = {
        "1": Image.fromarray(gray).convert("1"),
        "L": Image.fromarray(gray),
        "I;16": Image.fromarray(sixteen),
        "I;16B": Image.frombytes("I;16B", (2, 2), sixteen.astype(">u2").tobytes()),
        "I": Image.fromarray(sixteen.astype(np.int32)),
        "F": Image.fromarray(gray.astype(np.float32)),
    }
    for mode, picture in pictures.items():
        assert picture.mode == mode
        np.testing.assert_array_equal(as_viewer_shows(picture), expected, err_msg=mode)


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    path = as_file(Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)), "dark.png", tmp_path)
    assert np.asarray(read_picture(path)).max() == 1  # 200 of 65,535


def test_a_palette_picture_shows_its_colors(tmp_path):
    picture = Image.fromarray(quarters()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    path = as_file(picture, "palette.png", tmp_path)
    assert Image.open(path).mode == "P"
    np.testing.assert_allclose(np.asarray(read_picture(path), dtype=int), quarters(), atol=2)


def test_cmyk_shows_its_colors():
    picture = Image.fromarray(quarters()).convert("CMYK")
    np.testing.assert_array_equal(as_viewer_shows(picture), quarters())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB"])
def test_what_is_transparent_is_white(mode, tmp_path):
    gray = np.full((2, 4), 60, dtype=np.uint8)
    alpha = np.repeat(np.array([[255, 255, 0, 0]], dtype=np.uint8), 2, axis=0)
    if mode == "RGB":  # a colour that counts as transparent
        path = as_file(
            Image.fromarray(np.where(alpha > 0, gray, 9)).convert("RGB"), "a.png", tmp_path, transparency=(9, 9, 9)
        )
    elif mode == "P":
        picture = Image.fromarray((alpha == 0).astype(np.uint8), mode="L").convert("P")
        picture.putpalette([60, 60, 60, 90, 90, 90])
        path = as_file(picture, "a.png", tmp_path, transparency=1)
    elif mode == "PA":
        path = Image.frombytes("PA", (4, 2), np.stack([gray // 60, alpha], axis=-1).tobytes())
        path.putpalette([0, 0, 0, 60, 60, 60])
    else:
        path = as_file(Image.fromarray(np.stack([gray] * (len(mode) - 1) + [alpha], axis=-1)), "a.png", tmp_path)
    pixels = np.asarray(read_picture(path))
    assert (pixels[:, :2] == 60).all()
    assert (pixels[:, 2:] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = np.full((1, 1, 4), (0, 0, 0, 128), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(as_viewer_shows(pixels))[0, 0], [127, 127, 127])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_and_reflection_are_applied(orientation, tmp_path):
    shown = Image.fromarray(quarters())
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = shown if undo is None else shown.transpose(undo)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = as_file(stored, "turned.png", tmp_path, exif=exif)
    np.testing.assert_array_equal(read_picture(path), quarters())
    np.testing.assert_array_equal(as_viewer_shows(Image.open(path)), quarters())


@pytest.mark.parametrize(
    "array",
    [
        quarters(),
        quarters().transpose(2, 0, 1),
        torch.from_numpy(quarters().copy()),
        torch.from_numpy(quarters().copy()).permute(2, 0, 1),
        quarters().astype(np.int64),
        quarters().astype(np.uint16) * 257,
        quarters().astype(np.float64),
        quarters() / 255,
        torch.from_numpy(quarters() / 255).float(),
        quarters()[:, ::-1][:, ::-1],
    ],
    ids=["hwc", "chw", "tensor-hwc", "tensor-chw", "int64", "uint16", "floats", "unit", "tensor-unit", "strided"],
)
def test_arrays_and_tensors(array):
    np.testing.assert_array_equal(as_viewer_shows(array), quarters())


def test_gray_and_boolean_arrays():
    gray = np.array([[0, 128], [255, 7]], dtype=np.uint8)
    for array in (gray, gray[..., None], gray[None], torch.from_numpy(gray)[None]):
        np.testing.assert_array_equal(as_viewer_shows(array), np.repeat(gray[..., None], 3, axis=-1))
    np.testing.assert_array_equal(np.asarray(as_viewer_shows(gray > 100))[..., 0], (gray > 100) * 255)


def test_channels_come_first_in_tensors_and_last_in_arrays_where_both_could_be():
    pixels = random_pixels(3, 1)
    np.testing.assert_array_equal(as_viewer_shows(pixels), pixels)
    tensor = torch.from_numpy(random_pixels(1, 4)).permute(2, 0, 1)
    np.testing.assert_array_equal(as_viewer_shows(tensor), tensor.permute(1, 2, 0))
    np.testing.assert_array_equal(
        as_viewer_shows(tensor.numpy(), input_data_format="channels_first"), tensor.permute(1, 2, 0)
    )


@pytest.fixture
def address(tmp_path):
    """A folder on a web server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_keep_transparency_and_rotation(address, tmp_path):
    pixels = np.dstack([quarters(), np.full((8, 12), 255, dtype=np.uint8)])
    pixels[:4, :6, 3] = 0
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    as_file(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90), "a.png", tmp_path, exif=exif)
    expected = quarters()
    expected[:4, :6] = 255
    np.testing.assert_array_equal(read_picture(f"{address}/a.png", timeout=10), expected)
    with pytest.raises(OSError, match=r"missing\.png cannot be fetched: .*404"):
        read_picture(f"{address}/missing.png", timeout=10)


def test_data_addresses():
    buffer = BytesIO()
    Image.fromarray(quarters()).save(buffer, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    np.testing.assert_array_equal(read_picture(address), quarters())
    with pytest.raises(ValueError, match="not a picture") as error:
        read_picture(f"data:image/png;base64,{'A' * 10_000}")
    assert len(str(error.value)) < 300


def test_a_data_address_without_base64_is_refused():
    with pytest.raises(ValueError, match=r"^data:image/png;base64,% cannot be read"):
        read_picture("data:image/png;base64,%")


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBa"])
def test_other_color_modes_show_their_colors(mode):
    shown = Image.new("RGB", (3, 2), (200, 40, 90))
    picture = shown.convert("RGBA").convert("RGBa") if mode == "RGBa" else shown.convert(mode)
    assert picture.mode == mode
    np.testing.assert_allclose(as_viewer_shows(picture), np.asarray(shown, dtype=int), atol=3)


def test_color_files_of_16_bits(tmp_path):
    rows = np.random.default_rng(0).integers(0, 65536, (2, 3), dtype=np.uint16)
    gray = as_file(Image.fromarray(rows), "grey.png", tmp_path)
    expected = np.round(rows / 257)
    np.testing.assert_array_equal(np.asarray(read_picture(gray))[..., 0], expected)
    tiff = as_file(Image.fromarray(rows), "grey.tiff", tmp_path)
    np.testing.assert_array_equal(np.asarray(read_picture(tiff))[..., 1], expected)


def test_floats_of_half_precision_are_rounded_as_single_ones():
    values = (np.arange(256).reshape(16, 16) / 255).astype(np.float16)
    expected = as_viewer_shows(values.astype(np.float32))
    np.testing.assert_array_equal(as_viewer_shows(values), expected)
    np.testing.assert_array_equal(as_viewer_shows(torch.from_numpy(values)), expected)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (3000, 2000)).save(tmp_path / "large.png")  # a file of few bytes
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"large\.png cannot be read: it has 3000 x 2000 pixels, 6\.0 million, and at"):
        read_picture(tmp_path / "large.png", max_pixels=5_999_999)


def test_a_picture_of_just_the_allowed_pixels_is_read(tmp_path):
    Image.new("RGB", (30, 20), (1, 2, 3)).save(tmp_path / "small.png")
    assert read_picture(tmp_path / "small.png", max_pixels=600).getpixel((0, 0)) == (1, 2, 3)


def test_a_picture_beyond_what_pillow_opens_is_told_the_limit_that_holds_here(tmp_path, monkeypatch):
    Image.new("1", (3000, 2000)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # Pillow refuses twice as many
    with pytest.raises(
        ValueError, match=r"large\.png cannot be read: it has too many pixels, and at most 5 million are"
    ):
        read_picture(tmp_path / "large.png", max_pixels=5_000_000)
    with pytest.raises(ValueError, match=r"large\.png cannot be read: Image size \(6000000 pixels\) exceeds limit"):
        read_picture(tmp_path / "large.png")


def test_postscript_of_strangers_is_not_run(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20)).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "photo.png")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(ValueError, match=r"photo\.png cannot be read: it is a PostScript file; save it as PNG or JPEG"):
        read_picture(tmp_path / "photo.png", max_pixels=600)
