#!/usr/bin/env bash
# What: `accelerate launch` turns any failing exit status of a script into 1 and adds a traceback of its own.
# Version: accelerate 1.15.0
# Seen: A script that ends with status 2 and one line, as argparse does for a wrong option: the launcher prints a
#   traceback that ends with CalledProcessError and returns 1. With `--quiet` the traceback is gone, the status is 1.
# Why it matters: Shell scripts and schedulers that tell "wrong options" from "try again" by the status cannot under
#   the launcher, and the script's message is lost above a traceback. Start a script of one process with python.
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

if len(sys.argv) > 1:
    sys.stderr.write("script.py: no such option\n")
    raise SystemExit(int(sys.argv[1]))
PY

cat > check.py <<'PY'
import subprocess
from importlib.metadata import version

print("accelerate", version("accelerate"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def run(command):
    finished = subprocess.run(command.split(), capture_output=True, text=True, timeout=300)
    return finished.returncode, "no such option" in finished.stderr, "CalledProcessError" in finished.stderr


LAUNCH = "venv/bin/accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
check("python: status, message, CalledProcessError", run("venv/bin/python script.py 2"), (2, True, False))
check("accelerate launch", run(f"{LAUNCH} script.py 2"), (1, True, True))
check("accelerate launch, status 75", run(f"{LAUNCH} script.py 75"), (1, True, True))
check("accelerate launch --quiet", run(f"{LAUNCH} --quiet script.py 2"), (1, True, False))
check("accelerate launch, success", run(f"{LAUNCH} script.py"), (0, False, False))
PY
HF_HOME="$work/home" CUDA_VISIBLE_DEVICES="" venv/bin/python check.py
