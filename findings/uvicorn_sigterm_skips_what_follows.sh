#!/usr/bin/env bash
# What: `uvicorn.run` returns after Ctrl-C, but after SIGTERM it kills its own process once the server has shut down.
# Version: uvicorn 0.54.0
# Seen: A script with a `finally` around `uvicorn.run`, an `atexit` function and an exit status of its own: after SIGINT
#   all three come about. After SIGTERM the application's shutdown runs, then uvicorn raises the signal again under the
#   handler from before, by default the one that ends the process: nothing of the three, status -15.
# Why it matters: What stands after `uvicorn.run` (the last log line, a lock's release, temporary files) is skipped in
#   containers and under systemd, which send SIGTERM, though it works when one tries it with Ctrl-C. Set a handler of
#   SIGTERM that raises an exception before the server runs, or tidy up in the application's lifespan.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check uvicorn==0.54.0

cat > serve.py <<'PY'
import atexit
import signal
import sys

import uvicorn


async def application(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        print(message["type"], flush=True)
        await send({"type": message["type"] + ".complete"})


class Terminated(Exception):
    pass


def terminate(number, frame):
    raise Terminated


if "--handler" in sys.argv:
    signal.signal(signal.SIGTERM, terminate)
atexit.register(lambda: print("atexit", flush=True))
try:
    uvicorn.run(application, port=0, log_level="error")
except Terminated:
    print("terminated", flush=True)
finally:
    print("finally", flush=True)
sys.exit(7)
PY

cat > check.py <<'PY'
import signal
import subprocess
import sys
from importlib.metadata import version

print("uvicorn", version("uvicorn"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def end(number, *options):
    process = subprocess.Popen([sys.executable, "serve.py", *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "lifespan.startup\n"
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return said.split(), process.returncode


check("after SIGINT", end(signal.SIGINT), (["lifespan.shutdown", "finally", "atexit"], 7))
check("after SIGTERM", end(signal.SIGTERM), (["lifespan.shutdown"], -15))
check(
    "after SIGTERM, with a handler that raises",
    end(signal.SIGTERM, "--handler"),
    (["lifespan.shutdown", "terminated", "finally", "atexit"], 7),
)
PY
venv/bin/python check.py
