"""Graphs in eight bits: dynamic for ONNX Runtime, which needs no pictures, static for OpenVINO, which does.

Only products with weights are lowered, which are almost all of the work. Norms, depthwise convolutions and what lies
between stay as they are; mask proposals and class scores do, too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..model.picture_preparation import Preparation
from ..model.pictures import read_picture
from .manifest import Settings

DYNAMIC_GRAPHS = ("texts", "picture", "adapter")
STATIC_GRAPHS = ("picture",)  # with ranges of some masks' activations, the adapter gives others wrong embeddings

Inputs = Mapping[str, np.ndarray]


def quantize_for_onnxruntime(folder: Path, graphs: Mapping[str, str]) -> None:
    """Lower graphs in place, see [`lower_dynamically`]."""
    for graph in DYNAMIC_GRAPHS:
        if graph in graphs:
            lower_dynamically(folder / graphs[graph])


def quantize_for_openvino(folder: Path, graphs: Mapping[str, str], settings: Settings, pictures: Sequence[Any]) -> None:
    """Lower graphs in place, see [`lower_statically`].

    Args:
        folder: of the ONNX graphs.
        graphs: the file of each graph, by its name.
        settings: how pictures are prepared.
        pictures: like those that will be segmented.
    """
    inputs = _inputs_of_pictures(settings, pictures)
    for graph in STATIC_GRAPHS:
        if graph in graphs:
            lower_statically(folder / graphs[graph], inputs[graph])


def lower_dynamically(graph: Path) -> None:
    """Lower a graph in its place: weights to int8 for each channel, activations when they are computed."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _replaced(graph) as (path, lowered, is_large), _quiet():
        quantize_dynamic(
            path,
            lowered,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large,
        )


def lower_statically(graph: Path, inputs: Sequence[Inputs]) -> None:
    """Lower a graph in its place: weights to int8 for each channel, activations to ranges seen with some inputs."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with _replaced(graph) as (path, lowered, is_large), _quiet():
        quantize_static(
            path,
            lowered,
            _Reader(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large,
        )


class _Reader:
    """What ONNX Runtime's calibration reads inputs from."""

    def __init__(self, inputs: Sequence[Inputs]):
        self._waiting = iter(inputs)

    def get_next(self) -> Inputs | None:
        return next(self._waiting, None)


def _inputs_of_pictures(settings: Settings, pictures: Sequence[Any]) -> dict[str, list[Inputs]]:
    """What goes into the graphs when pictures are segmented."""
    preparation = Preparation(**settings.image_processor)
    found: dict[str, list[Inputs]] = {graph: [] for graph in STATIC_GRAPHS}
    for picture in map(read_picture, pictures):
        size = preparation.new_size((picture.height, picture.width))
        padded = preparation.padded_size([size])
        pixels = np.zeros((1, 3, *padded), np.float32)
        pixels[0, :, : size[0], : size[1]] = preparation.pixels(picture, size)
        found["picture"].append({"pixel_values": pixels})
    return found


@contextmanager
def _replaced(path: Path) -> Iterator[tuple[Path, Path, bool]]:
    """A graph, a file for what replaces it, and whether weights lie beside it."""
    lowered, data = path.with_name(f"lowered_{path.name}"), path.with_name(f"{path.name}.data")
    is_large = data.exists()
    yield path, lowered, is_large
    data.unlink(missing_ok=True)
    path.unlink()
    if is_large:  # the name of the file beside it stands in the graph
        import onnx

        onnx.save(onnx.load(lowered), path, save_as_external_data=True, location=data.name)
        lowered.unlink()
        lowered.with_name(f"{lowered.name}.data").unlink(missing_ok=True)
    else:
        lowered.rename(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice to run a preprocessing that the exporter's own optimisation has done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


__all__ = ["lower_dynamically", "lower_statically", "quantize_for_onnxruntime", "quantize_for_openvino"]
