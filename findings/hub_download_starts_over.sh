#!/usr/bin/env bash
# What: A download that was interrupted begins again from its first byte in the next process.
# Version: huggingface_hub 2.4.0 (`hf_hub_download`)
# Seen: of a 30 MB file 25 MB arrive, then the server stops serving. Inside the process the client asks for the rest
#   (from 20971520: what arrived after the last full block of 10 MiB is dropped); once it has given up, nothing of the
#   25 MB stays on disk, and the next process sends no Range header.
# Why it matters: checkpoints of segmenters have one to several gigabytes. On a connection that breaks often, asking
#   again never gets further. `huggingface_hub.file_download.http_get(..., resume_size=...)` on a file of one's own does.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check huggingface_hub==2.4.0

cat > check.py <<'PY'
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SIZE, ARRIVES = 30_000_000, 25_000_000
CONTENT = bytes(range(250)) * (SIZE // 250)
requests, state = [], {"broken": True, "served": 0}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def start(self, status, length, **more):
        self.send_response(status)
        headers = {"X-Repo-Commit": "0" * 40, "ETag": '"1234567890"', "Accept-Ranges": "bytes"}
        for name, value in (headers | more | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()

    def do_HEAD(self):
        self.start(200, SIZE)

    def do_GET(self):
        wanted = self.headers.get("Range", "")
        requests.append(wanted)
        first = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        if not state["broken"]:
            more = {"Content-Range": f"bytes {first}-{SIZE - 1}/{SIZE}"} if wanted else {}
            self.start(206 if wanted else 200, SIZE - first, **more)
            self.wfile.write(CONTENT[first:])
        elif state["served"] == 0:
            state["served"] = 1
            self.start(200, SIZE)
            self.wfile.write(CONTENT[:ARRIVES])
            self.close_connection = True
        else:
            self.start(404, 0)


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
program = "import huggingface_hub as h; print(h.__version__, h.hf_hub_download('owner/model', 'weights.pth'))"
environment = os.environ | {
    "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(Path("home").resolve()),
    "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def download():
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


first = download()
check("first process fails", first.returncode != 0, True)
check("ranges that it asked for", requests, ["", "bytes=20971520-"])
left = sum(path.stat().st_size for path in Path("home").rglob("*") if path.is_file() and path.stat().st_size > 10_000)
check("bytes that stay on disk", left, 0)
requests.clear()
state["broken"] = False
second = download()
print("huggingface_hub", second.stdout.split()[0])
check("second process succeeds", second.returncode, 0)
check("ranges that it asked for", requests, [""])
PY
venv/bin/python check.py
