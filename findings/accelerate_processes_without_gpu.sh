#!/usr/bin/env bash
# What: On a machine without accelerator Accelerate runs one process where two are asked for, and two that torchrun
#   starts both take themselves for the only one.
# Version: accelerate 1.15.0, torch 2.13.0
# Seen: `accelerate launch --cpu --num_processes 2` starts one process; nothing says so. `torchrun --nproc_per_node 2`
#   starts two, each "0 of 1" and main, for `PartialState()` and `Accelerator()`; with `cpu=True` they are 0 and 1 of 2.
# Why it matters: A test of distributed code on a CPU passes without testing it, or both processes evaluate the whole
#   data set and write the same results file. Use torchrun and `cpu=True`, and check num_processes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check torch==2.13.0
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    torch==2.13.0 accelerate==1.15.0 numpy==2.4.6

cat > script.py <<'PY'
import sys

from accelerate import Accelerator, PartialState

options = {"cpu": True} if "cpu" in sys.argv else {}
state = Accelerator(**options) if "accelerator" in sys.argv else PartialState(**options)
sys.stdout.write(f"{state.process_index} of {state.num_processes}, main {state.is_main_process}\n")
PY

cat > check.py <<'PY'
import subprocess
from importlib.metadata import version

print("accelerate", version("accelerate"), "torch", version("torch"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def processes(command):
    finished = subprocess.run(command.split(), capture_output=True, text=True, timeout=300, check=True)
    return sorted(line for line in finished.stdout.splitlines() if " of " in line)


LAUNCH = "venv/bin/accelerate launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
TORCHRUN = "venv/bin/torchrun --standalone --nproc_per_node 2"
ALONE, TWO = "0 of 1, main True", ["0 of 2, main True", "1 of 2, main False"]
check("accelerate launch --cpu --num_processes 2", processes(f"{LAUNCH} script.py"), [ALONE])
check("the same with cpu=True", processes(f"{LAUNCH} script.py cpu"), [ALONE])
check("torchrun, PartialState()", processes(f"{TORCHRUN} script.py"), [ALONE, ALONE])
check("torchrun, Accelerator()", processes(f"{TORCHRUN} script.py accelerator"), [ALONE, ALONE])
check("torchrun, PartialState(cpu=True)", processes(f"{TORCHRUN} script.py cpu"), TWO)
check("torchrun, Accelerator(cpu=True)", processes(f"{TORCHRUN} script.py accelerator cpu"), TWO)
PY
HF_HOME="$work/home" CUDA_VISIBLE_DEVICES="" venv/bin/python check.py
