"""Pictures in many forms, and what they look like."""

import numpy as np

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
