#!/usr/bin/env bash
# What: FastAPI's routes for GET refuse HEAD with 405; Starlette's, on which they are built, answer it.
# Version: fastapi 0.165.0, starlette 1.10.0
# Seen: `@app.get("/healthz")` answers GET with 200 and HEAD with 405, whose Allow header names GET alone. The same
#   function in a Starlette `Route` answers both with 200.
# Why it matters: RFC 9110 asks every general-purpose server for GET and HEAD, and health checks that send HEAD (`wget
#   --spider`, `curl -I`, some load balancers) take a healthy service for a broken one. Add `@app.head` to the function.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1

cat > check.py <<'PY'
import asyncio
from importlib.metadata import version

import httpx
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

print("fastapi", version("fastapi"), "starlette", version("starlette"))


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def health(request=None):
    return PlainTextResponse("ok")


plain, both = FastAPI(), FastAPI()
plain.get("/healthz", response_model=None)(health)
both.head("/healthz", response_model=None)(both.get("/healthz", response_model=None)(health))
of_starlette = Starlette(routes=[Route("/healthz", health)])


async def ask(application):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        answers = [await client.request(method, "/healthz") for method in ("GET", "HEAD")]
    return [answer.status_code for answer in answers], answers[1].headers.get("allow")


check("FastAPI: GET, HEAD; Allow", asyncio.run(ask(plain)), ([200, 405], "GET"))
check("Starlette", asyncio.run(ask(of_starlette)), ([200, 200], None))
check("FastAPI with @app.head", asyncio.run(ask(both)), ([200, 200], None))
PY
venv/bin/python check.py
