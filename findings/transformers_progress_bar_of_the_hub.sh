#!/usr/bin/env bash
# What: Switching off Transformers' progress bars switches off those of huggingface_hub too, for the whole process, and
#   switching them on switches on those that were off.
# Version: transformers 5.23.0, huggingface_hub 2.4.0
# Seen: After `transformers.utils.logging.disable_progress_bar()` huggingface_hub's bars print nothing; after
#   `enable_progress_bar()` they print though `huggingface_hub.utils.disable_progress_bars()` had been called before.
#   The other way round nothing happens: Transformers says that its bars are on while the hub's are off.
# Why it matters: A program that only wants to spare its user the bar of loading weights downloads gigabytes in
#   silence. Call `huggingface_hub.utils.enable_progress_bars()` after it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check transformers==5.23.0 huggingface_hub==2.4.0

cat > check.py <<'PY'
from importlib.metadata import version
from io import StringIO

from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, tqdm
from transformers.utils import logging

print("transformers", version("transformers"), "huggingface_hub", version("huggingface_hub"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def hub_bar():
    printed = StringIO()
    for _ in tqdm(range(2), file=printed):
        pass
    return bool(printed.getvalue())


def bars():
    return hub_bar(), logging.is_progress_bar_enabled()


check("bars (huggingface_hub's, Transformers') at first", bars(), (True, True))
logging.disable_progress_bar()
check("after transformers disable_progress_bar", bars(), (False, False))
enable_progress_bars()
check("after huggingface_hub enable_progress_bars", bars(), (True, False))
disable_progress_bars()
logging.enable_progress_bar()
check("after huggingface_hub disable_progress_bars, transformers enable_progress_bar", bars(), (True, True))
disable_progress_bars()
check("after huggingface_hub disable_progress_bars", bars(), (False, True))
PY
HF_HUB_OFFLINE=1 venv/bin/python check.py
