"""What runs graphs: ONNX Runtime or OpenVINO, whichever the folder is made for. Graphs are opened when first used."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .manifest import Manifest

PROPOSALS = "proposals"
"""The graph that proposes masks."""
IN_FLOAT32 = (PROPOSALS, "classes")
"""Graphs that compute in fp32 whatever was chosen: sampling places, thresholded attention and scores need it."""

_INSTALL = "pip install 'hf-maskadapter-runtime[{0}]' (or 'hf-maskadapter[export]')"


class Engine(ABC):
    """Runs the graphs of a folder.

    Args:
        folder: where they are.
        manifest: the folder's.
        threads: processor threads to use; by default as many as the engine chooses.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None = None):
        self.folder, self.manifest, self.threads = folder, manifest, threads
        self._opened: dict[str, Any] = {}

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a graph.

        Args:
            graph: its name.
            inputs: its inputs by name.

        Returns:
            Its outputs by name.
        """
        if graph not in self._opened:
            self._opened[graph] = self._open(graph, self.folder / self.manifest.graphs[graph])
        return self._run(self._opened[graph], inputs)

    @property
    @abstractmethod
    def name(self) -> str:
        """The engine's name and version."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """What the graphs that were opened compute in, as the engine tells, such as `"float32"`."""

    @abstractmethod
    def _open(self, graph: str, path: Path) -> Any: ...

    @abstractmethod
    def _run(self, opened: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on the CPU."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None = None):
        super().__init__(folder, manifest, threads)
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"{folder} needs ONNX Runtime: {_INSTALL.format('onnxruntime')}", name=error.name
            ) from None
        self._onnxruntime = onnxruntime

    @property
    def name(self) -> str:
        """The engine's name and version."""
        return f"onnxruntime {self._onnxruntime.__version__}"

    @property
    def precision(self) -> str:
        """As exported: ONNX Runtime computes in the types that stand in the graph."""
        return self.manifest.dtype

    def _open(self, graph: str, path: Path) -> Any:  # noqa: ARG002
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # sizes differ from call to call
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        return self._onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def _run(self, opened: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        known = {value.name for value in opened.get_inputs()}
        names = [value.name for value in opened.get_outputs()]
        given = {name: np.ascontiguousarray(values) for name, values in inputs.items() if name in known}
        return dict(zip(names, opened.run(names, given), strict=True))


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU, in the precision that was chosen and no other."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None = None):
        super().__init__(folder, manifest, threads)
        try:
            import openvino
        except ImportError as error:
            raise ImportError(f"{folder} needs OpenVINO: {_INSTALL.format('openvino')}", name=error.name) from None
        self._openvino, self._core = openvino, openvino.Core()

    @property
    def name(self) -> str:
        """The engine's name and version."""
        return f"openvino {self._openvino.__version__.partition('-')[0]}"

    @property
    def precision(self) -> str:
        """What OpenVINO says that it computes in, of the graphs that are not always in fp32.

        With int8 that is said of what lies between the products with weights.
        """
        asked = {
            compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            for graph, compiled in self._opened.items()
            if graph not in IN_FLOAT32
        }
        names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
        ran = "+".join(sorted(names.get(precision, precision) for precision in asked)) or "nothing yet"
        return f"int8 ({ran})" if self.manifest.dtype == "int8" else ran

    def _open(self, graph: str, path: Path) -> Any:
        # Without this hint, OpenVINO computes fp32 models in bf16 on processors that have it.
        is_half = self.manifest.dtype != "float32" and graph not in IN_FLOAT32
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if is_half else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        if self.threads is not None:
            config["INFERENCE_NUM_THREADS"] = self.threads
        return self._core.compile_model(os.fspath(path), "CPU", config)

    def _run(self, opened: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        known = {name for port in opened.inputs for name in port.names}  # a port may have several
        given = {name: np.ascontiguousarray(values) for name, values in inputs.items() if name in known}
        results = opened(given)
        return {name: results[port] for port in opened.outputs for name in port.names}


def open_engine(folder: Path, manifest: Manifest, threads: int | None = None) -> Engine:
    """The engine that a folder is made for.

    Raises:
        ImportError: if it is not installed.
    """
    kind = OnnxRuntimeEngine if manifest.format == "onnx" else OpenVinoEngine
    return kind(folder, manifest, threads)


__all__ = ["Engine", "OnnxRuntimeEngine", "OpenVinoEngine", "open_engine"]
