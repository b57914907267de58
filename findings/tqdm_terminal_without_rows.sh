#!/usr/bin/env bash
# What: On a terminal that tells 0 rows, tqdm shows no bar at all, only an empty line at the end.
# Version: tqdm 4.70.1
# Seen: A bar of 3 steps on a pseudo-terminal of 0 rows and 0 columns, as one is after `openpty` and in some containers
#   and build services: what arrives has no word of it, and neither COLUMNS and LINES nor `ncols=80` help. With 24 rows
#   it is there, whatever the columns. `isatty()` is true for all.
# Why it matters: Downloads and conversions of minutes seem to hang where the terminal's size was never set, and a test
#   of a progress bar by a pseudo-terminal must set its size first.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check tqdm==4.70.1

cat > bar.py <<'PY'
import sys

from tqdm import tqdm

assert sys.stderr.isatty()
for _ in tqdm(range(3), desc="steps", **({"ncols": int(sys.argv[1])} if len(sys.argv) > 1 else {})):
    pass
PY

cat > check.py <<'PY'
import contextlib
import os
import pty
import subprocess
import sys
import termios
from importlib.metadata import version

print("tqdm", version("tqdm"))


def shows_a_bar(rows, columns, *arguments, environment=None):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (rows, columns))
    process = subprocess.Popen([sys.executable, "bar.py", *arguments], stderr=end, env=environment)
    os.close(end)
    pieces = []
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 4096):
            pieces.append(piece)
    assert process.wait() == 0
    return b"steps" in b"".join(pieces)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
check("24 rows, 80 columns", shows_a_bar(24, 80, environment=plain), True)
check("0, 0", shows_a_bar(0, 0, environment=plain), False)
check("24, 0", shows_a_bar(24, 0, environment=plain), True)
check("0, 80", shows_a_bar(0, 80, environment=plain), False)
check("0, 0, COLUMNS=80", shows_a_bar(0, 0, environment=plain | {"COLUMNS": "80", "LINES": "24"}), False)
check("0, 0, ncols=80", shows_a_bar(0, 0, "80", environment=plain), False)
PY
venv/bin/python check.py
