#!/usr/bin/env bash
# What: OpenVINO's `any_name` of an input may be the name of a node behind it, and not the name that its ONNX model gives.
# Version: openvino 2026.4.1
# Seen: an ONNX model whose input `pixels` goes through a Cast to the type that it has. Once compiled, the port has both
#   names, and `any_name` is the node's. A dict of inputs made by `any_name` therefore lacks the input; run without it, a
#   model of free sizes fails with "array is too big" or another message that names no input.
# Why it matters: exporters leave such casts where code says `pixels.to(weight.dtype)`. Look a name up in `port.names`.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6

cat > check.py <<'PY'
import numpy as np
import onnx
import openvino

print("openvino", openvino.__version__)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


FLOAT = onnx.TensorProto.FLOAT
nodes = [
    onnx.helper.make_node("Cast", ["pixels"], ["cast"], to=FLOAT),
    onnx.helper.make_node("Relu", ["cast"], ["features"]),
]
shape = ["batch", 3, "height", "width"]
graph = onnx.helper.make_graph(
    nodes,
    "graph",
    [onnx.helper.make_tensor_value_info("pixels", FLOAT, shape)],
    [onnx.helper.make_tensor_value_info("features", FLOAT, shape)],
)
onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), "model.onnx")
compiled = openvino.Core().compile_model("model.onnx", "CPU")
(port,) = compiled.inputs
check("names of the input", sorted(port.names), ["cast", "pixels"])
check("any_name of the input", port.any_name, "cast")
result = compiled({"pixels": np.full((1, 3, 4, 6), -1, np.float32)})
check("run by the model's own name", result[0].shape, (1, 3, 4, 6))
PY
venv/bin/python check.py
