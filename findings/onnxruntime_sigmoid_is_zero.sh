#!/usr/bin/env bash
# What: ONNX Runtime's Sigmoid on processors is exactly 0 from -18 on, and off by a factor of 2 before.
# Version: onnxruntime 1.32.0
# Seen: in fp32, Sigmoid(-17) is 8.9e-8 where 4.1e-8 is right, and Sigmoid(-18), which fp32 holds as 1.5e-8, is 0.
# Why it matters: `logsigmoid` exported as Log(Sigmoid(x)) is off by 0.8 at -17 and minus infinity behind. Softmaxes of it,
#   which weigh positions of strongly negative maps, then differ by percents. Write min(x, 0) - log(1 + exp(-|x|)).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

cat > check.py <<'PY'
import numpy as np
import onnx
import onnxruntime

print("onnxruntime", onnxruntime.__version__)
FLOAT = onnx.TensorProto.FLOAT
graph = onnx.helper.make_graph(
    [onnx.helper.make_node("Sigmoid", ["x"], ["y"])],
    "graph",
    [onnx.helper.make_tensor_value_info("x", FLOAT, ["n"])],
    [onnx.helper.make_tensor_value_info("y", FLOAT, ["n"])],
)
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
x = np.array([-10, -17, -18, -30], np.float32)
(seen,) = session.run(None, {"x": x})
right = 1 / (1 + np.exp(-x.astype(np.float64)))
for value, of_runtime, exact in zip(x, seen, right, strict=True):
    print(f"Sigmoid({value:g}): {of_runtime:.3g}, exactly {exact:.3g}, in fp32 {np.float32(exact):.3g}")
if not (abs(seen[0] / right[0] - 1) < 1e-3 and seen[1] > 2 * right[1] and seen[2] == seen[3] == 0):
    raise SystemExit("  changed: it was right at -10, twice as large at -17, and 0 from -18 on")
PY
venv/bin/python check.py
