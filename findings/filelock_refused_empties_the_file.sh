#!/usr/bin/env bash
# What: A process that asks for a lock and is refused empties the lock file of the process that holds it.
# Version: filelock 3.29.7, the last release that does it; 3.30.0 does not
# Seen: The owner writes "host 1, process 2" into its lock file; another process gets Timeout, as it should, and the
#   file is empty (3.29.7) or unchanged (3.30.0, 4.3.1). Taking the lock empties it in 3.29.7 and 3.30.0, not in 4.3.1.
# Why it matters: Programs that tell a waiting user who holds a cache or a results folder write that into the lock
#   file. huggingface_hub 2.4.0 takes any filelock from 3.10.0 and torch 2.13.0 any at all, so where an older one is
#   installed, the first process that asks destroys the answer. Write it to a file beside the lock.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv

cat > check.py <<'PY'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

OWNER, LOCK = "host 1, process 2", "results.lock"
ASK = "import filelock; filelock.FileLock('results.lock').acquire(timeout=0)"
_, refused, taken = sys.argv


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


print("filelock", version("filelock"))
with FileLock(LOCK):
    with open(LOCK, "r+") as file:
        file.write(OWNER)
    asking = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    check("the other process", asking.stderr.strip().splitlines()[-1].split(":")[0], f"{Timeout.__module__}.Timeout")
    check("then the owner's file has", Path(LOCK).read_text(), refused)
Path(LOCK).write_text(OWNER)
with FileLock(LOCK):
    check("taken, a file that had the owner has", Path(LOCK).read_text(), taken)
PY
owner="host 1, process 2"
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check filelock==3.29.7
venv/bin/python check.py "" ""
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check filelock==3.30.0
venv/bin/python check.py "$owner" ""
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check filelock==4.3.1
venv/bin/python check.py "$owner" "$owner"
