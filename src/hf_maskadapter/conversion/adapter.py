"""The published Mask-Adapter → [`MaskAdapterModel`]."""

from __future__ import annotations

from typing import Any

from .key_tables import KeyTable, Shapes, StateDict

_BLOCK = "blocks.{n_minus_1}"

ADAPTER_KEYS = KeyTable(
    {
        "mask_downscaling.0.{p}": "mask_encoder.convs.0.{p}",
        "mask_downscaling.1.{p}": "mask_encoder.norms.0.{p}",
        "mask_downscaling.3.{p}": "mask_encoder.convs.1.{p}",
        "mask_downscaling.4.{p}": "mask_encoder.norms.1.{p}",
        "mask_downscaling.6.{p}": "mask_encoder.projection.{p}",
        "fuse.{p}": "fuse.{p}",
        "cnext{n}.dwconv.{p}": f"{_BLOCK}.depthwise_conv.{{p}}",
        "cnext{n}.norm.{p}": f"{_BLOCK}.norm.{{p}}",
        "cnext{n}.pwconv1.{p}": f"{_BLOCK}.pointwise_conv1.{{p}}",
        "cnext{n}.pwconv2.{p}": f"{_BLOCK}.pointwise_conv2.{{p}}",
        "cnext{n}.gamma": f"{_BLOCK}.layer_scale",
        "norm.{p}": "norm.{p}",
        "final.{p}": "final.{p}",
    }
)


def read_adapter_sizes(state: StateDict) -> dict[str, Any]:
    """Fields of [`MaskAdapterConfig`] that the adapter's weights tell.

    Args:
        state: converted state dict of the adapter, real or on the meta device.

    Raises:
        ConversionError: if weights are missing.
    """
    shapes = Shapes(state)
    return {
        "mask_channels": shapes.size("mask_encoder.convs.1.weight", 0),
        "hidden_size": shapes.size("fuse.weight", 0),
        "num_blocks": shapes.count("blocks."),
        "num_output_maps": shapes.size("final.weight", 0),
    }


__all__ = ["ADAPTER_KEYS", "read_adapter_sizes"]
