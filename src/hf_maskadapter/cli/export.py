"""`maskadapter export`: a model to graphs that run without PyTorch, with any vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.options import option
from .errors import EXIT_OK
from .options import Command
from .segment import find_pictures


@dataclass(kw_only=True)
class ExportOptions:
    """Which model, in which form, and where it goes."""

    model: str = option("name of a model, its folder, or its name on the Hub", metavar="MODEL", positional=True)
    output: Path = option("folder to write: it appears complete or not at all", metavar="DIR")
    format: Literal["onnx", "openvino"] = option("what runs it: ONNX Runtime, or OpenVINO", "onnx")
    dtype: Literal["float32", "bfloat16", "int8"] = option(
        "what it computes in; bfloat16 with OpenVINO alone. Mask proposals stay in float32", "float32"
    )
    calibration: Path | None = option(
        "folder of a few pictures like those that will be segmented, for int8 with OpenVINO", None, metavar="DIR"
    )
    overwrite: bool = option("replace the exported model in the output folder", False)


def run(options: ExportOptions) -> int:
    """Export, and print how far the result is from PyTorch's."""
    from .opening import silence_transformers

    silence_transformers()
    from ..export import export_model

    pictures = None
    if options.calibration is not None:
        pictures = [picture for picture, _ in find_pictures([options.calibration])]
    manifest = export_model(
        options.model,
        options.output,
        format=options.format,
        dtype=options.dtype,
        calibration=pictures,
        overwrite=options.overwrite,
    )
    measured = manifest.difference
    print(f"{options.output}: {manifest.format}, {manifest.dtype}, {_megabytes(manifest.files)}")
    equal = f", {measured['equal_pixels']:.2%} equal pixels" if "equal_pixels" in measured else ""
    print(
        f"compared with PyTorch ({measured['engine']}, {measured['precision']}): cosine of mask embeddings at least "
        f"{measured['least_cosine']:.6f}{equal}"
    )
    return EXIT_OK


def _megabytes(files: dict) -> str:
    return f"{sum(facts['bytes'] for facts in files.values()) / 1e6:.1f} MB"


COMMAND = Command(
    name="export",
    summary="write a model as graphs for ONNX Runtime or OpenVINO, which run without PyTorch",
    description="Write a model as graphs in which vocabulary, picture size and masks stay free, with all that is "
    "needed to run them without PyTorch: maskadapter segment --model DIR takes the folder, and so does the package "
    "hf-maskadapter-runtime.",
    options=ExportOptions,
    run=run,
    extra="export",
)
