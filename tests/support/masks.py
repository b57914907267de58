"""Masks and their run lengths, encoded independently of the package."""

import numpy as np
from pycocotools import mask as coco


def encoded(mask, compress):
    """COCO's run-length encoding: compressed by pycocotools, or counted here."""
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compress:
        return rle
    runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, mask.T.ravel().astype(int), -1])))
    return {"size": list(mask.shape), "counts": ([0] if mask[0, 0] else []) + runs.tolist()}
