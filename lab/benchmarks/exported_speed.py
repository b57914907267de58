"""Processor time of exported image towers and adapters against eager PyTorch, at full size with random weights."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.export.exporting import as_openvino, graphs_of, write_graph
from hf_maskadapter.export.quantization import lower_dynamically, lower_statically
from lab.benchmarks.model_sizes import ModelSize, build_config

_HEIGHT, _WIDTH = 672, 896
_CALIBRATION = (160, 224)

Inputs = Mapping[str, np.ndarray]
Run = Callable[[Inputs], Any]


def measure(model_size: ModelSize, threads: Sequence[int], rounds: int, num_masks: int) -> str:
    """A table of the image tower and the adapter, each contender in turn in every round.

    Args:
        model_size: of FC-CLIP.
        threads: numbers of processor threads.
        rounds: whose median counts.
        num_masks: boxes of many sizes that the adapter embeds, of which the sparse computation gains.

    Returns:
        Markdown: CPU seconds, and how many times as fast as eager PyTorch in fp32.
    """
    torch.manual_seed(0)
    segmenter = MaskAdapterForOpenVocabularySegmentation(build_config(model_size)).eval().requires_grad_(False)
    lines = ["| graph | engine | threads | CPU s | times eager |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for graph in ("picture", "adapter"):
            inputs = _inputs(segmenter, graph, (_HEIGHT, _WIDTH), num_masks)
            small = _inputs(segmenter, graph, _CALIBRATION, 4)
            files = _files(segmenter, graph, Path(folder), small)
            for number in threads:
                torch.set_num_threads(number)
                runs = {"PyTorch float32": _eager(segmenter, graph)} | _contenders(files, number)
                times: dict[str, list[float]] = {name: [] for name in runs}
                for _ in range(rounds + 1):  # the first one warms up
                    for name, run in runs.items():
                        start = time.process_time()
                        run(inputs)
                        times[name].append(time.process_time() - start)
                eager = statistics.median(times["PyTorch float32"][1:])
                for name, values in times.items():
                    median = statistics.median(values[1:])
                    lines.append(f"| {graph} | {name} | {number} | {median:.2f} | {eager / median:.2f} |")
    return "\n".join(lines)


def _inputs(segmenter: Any, graph: str, size: tuple[int, int], num_masks: int) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, *size, generator=generator)
    if graph == "picture":
        return {"pixel_values": pixels.numpy()}
    stride = segmenter.config.clip_config.size_divisor
    height, width = (side // stride for side in size)
    dense = torch.randn(1, segmenter.config.clip_config.feature_dim, height, width, generator=generator)
    masks = np.zeros((num_masks, size[0] // 4, size[1] // 4), np.float32)
    boxes = np.random.default_rng(0)
    for mask in masks:
        tall, wide = (
            int(side * share) + 1 for side, share in zip(mask.shape, boxes.uniform(0.05, 0.5, 2), strict=True)
        )
        top, left = boxes.integers(0, mask.shape[0] - tall), boxes.integers(0, mask.shape[1] - wide)
        mask[top : top + tall, left : left + wide] = 1
    projected = segmenter.project_features(dense)
    return {"projected_features": projected.numpy(), "dense_features": dense.numpy(), "masks": masks}


def _eager(segmenter: Any, graph: str) -> Run:
    if graph == "picture":
        return lambda inputs: segmenter.clip.get_feature_maps(torch.from_numpy(inputs["pixel_values"]))

    def embed(inputs: Inputs) -> Any:
        projected, dense = (torch.from_numpy(inputs[f"{name}_features"]) for name in ("projected", "dense"))
        masks = torch.from_numpy(inputs["masks"])[None] > 0
        return segmenter.adapter(
            projected, masks, dense, segmenter.clip.project, output_semantic_activation_maps=False, return_dict=True
        )

    return embed


def _files(segmenter: Any, graph: str, folder: Path, calibration: Inputs) -> dict[str, Path]:
    """The graph in every form that is compared, by the form's name."""
    files = {}
    for form in ("onnx float32", "onnx int8", "openvino float32", "openvino bfloat16", "openvino int8"):
        place = folder / graph / form.replace(" ", "-")
        place.mkdir(parents=True)
        path = place / write_graph(graph, graphs_of(segmenter)[graph], place)
        if form == "onnx int8":
            lower_dynamically(path)
        elif form == "openvino int8":
            lower_statically(path, [calibration])
        files[form] = path if form.startswith("onnx") else place / as_openvino(path, form.split()[1])  # type: ignore
    return files


def _contenders(files: Mapping[str, Path], threads: int) -> dict[str, Run]:
    import onnxruntime
    import openvino

    core, runs = openvino.Core(), {}

    def onnx(path: Path) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, dict(inputs))

    def other(path: Path, precision: str) -> Run:
        compiled = core.compile_model(
            os.fspath(path),
            "CPU",
            {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1"},
        )
        return lambda inputs: compiled(dict(inputs))

    for form, path in files.items():
        name = f"{form} ({onnxruntime.__version__ if 'onnx' in form else openvino.__version__.partition('-')[0]})"
        runs[name] = onnx(path) if form.startswith("onnx") else other(path, "f32" if "float32" in form else "bf16")
    return runs


__all__ = ["measure"]
