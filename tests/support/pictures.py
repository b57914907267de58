"""Pictures in many forms, and what they look like."""

import io

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 0x0112
SIDEWAYS = 6  # turn by 90° clockwise to show
RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (50, 70, 220)


def random_pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def quarters():
    """An 8x12 picture of four colours, of which no rotation or reflection is the same."""
    pixels = np.zeros((8, 12, 3), dtype=np.uint8)
    pixels[:4, :6], pixels[:4, 6:], pixels[4:, :6], pixels[4:, 6:] = RED, GREEN, BLUE, (250, 250, 10)
    return pixels


def as_file(image, name, tmp_path, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def encoded(image, kind="PNG", **options):
    """A file of a picture as bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _turned():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    return encoded(Image.fromarray(quarters()).transpose(Image.Transpose.ROTATE_90), exif=exif)


def _gray(value, shape=(8, 12)):
    return np.full((*shape, 3), value, dtype=np.uint8)


def _half_transparent():
    alpha = np.full((8, 12), 255, dtype=np.uint8)
    alpha[:, 6:] = 0
    shown = quarters()
    shown[:, 6:] = 255
    return encoded(Image.fromarray(np.dstack([quarters(), alpha]))), shown


def _transparent_palette():
    image = Image.fromarray((np.arange(96).reshape(8, 12) % 12 >= 6).astype(np.uint8), mode="P")
    image.putpalette([60, 70, 80, 200, 0, 0])
    shown = np.where(np.arange(12)[None, :, None] >= 6, 255, np.array([60, 70, 80])) + np.zeros((8, 1, 1), dtype=int)
    return encoded(image, transparency=1), shown.astype(np.uint8)


#: Files of pictures and the RGB that a viewer shows of them, computed by hand: every reader must see the latter.
VIEWED = {
    "rgb": (encoded(Image.fromarray(quarters())), quarters()),
    "16-bit grey of 20000": (encoded(Image.fromarray(np.full((8, 12), 20_000, dtype=np.uint16))), _gray(78)),
    "16-bit grey, dark": (encoded(Image.fromarray(np.full((8, 12), 200, dtype=np.uint16))), _gray(1)),
    "32-bit integers": (encoded(Image.fromarray(np.full((8, 12), 20_000, dtype=np.int32)), "TIFF"), _gray(78)),
    "float TIFF of 0 to 255": (encoded(Image.fromarray(np.full((8, 12), 77.6, dtype=np.float32)), "TIFF"), _gray(78)),
    "float TIFF of 0 to 1": (encoded(Image.fromarray(np.full((8, 12), 0.5, dtype=np.float32)), "TIFF"), _gray(128)),
    "transparent": _half_transparent(),
    "transparent palette": _transparent_palette(),
    "turned by EXIF": (_turned(), quarters()),
    "two values": (
        encoded(Image.fromarray(quarters()[..., 0] > 100)),
        np.where(quarters()[..., :1] > 100, 255, 0) + _gray(0),
    ),
    "grey": (encoded(Image.fromarray(quarters()[..., 1])), quarters()[..., [1, 1, 1]]),
    "CMYK": (encoded(Image.fromarray(quarters()).convert("CMYK"), "TIFF"), quarters()),
}
