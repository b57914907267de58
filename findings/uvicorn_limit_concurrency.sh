#!/usr/bin/env bash
# What: uvicorn's `limit_concurrency` counts connections that are idle, and the one that asks, and its 503 names no time.
# Version: uvicorn 0.54.0
# Seen: With `limit_concurrency=2`, one client that keeps its connection open after an answer takes up a place although
#   nothing runs; the next client is already refused: N lets N - 1 connections in. The answer is plain text without a
#   Retry-After header. When the idle connection is closed, the same request is answered.
# Why it matters: Who bounds a queue with it refuses health checks and clients while the service does nothing, as
#   browsers, proxies and HTTP libraries keep connections open. Count the requests that run in the application instead.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check uvicorn==0.54.0

cat > check.py <<'PY'
import http.client
import socket
import threading
import time
from importlib.metadata import version

import uvicorn

print("uvicorn", version("uvicorn"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


bound = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_level="error", limit_concurrency=2))
thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
thread.start()


def ask(connection):
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("Retry-After"), answer.headers.get("Content-Type")


def connect():
    return http.client.HTTPConnection(*bound.getsockname(), timeout=30)


idle = connect()
check("first client", ask(idle), (200, None, None))
check("second client, while the first is idle", ask(connect()), (503, None, "text/plain; charset=utf-8"))
idle.close()
time.sleep(1)
check("second client, after the first has left", ask(connect()), (200, None, None))
server.should_exit = True
thread.join(30)
PY
venv/bin/python check.py
