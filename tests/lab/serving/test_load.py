"""The load generator, on a service of its own."""

import email
import os
import re
import subprocess
import sys

import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from lab.serving import load  # noqa: E402
from lab.serving.clients import ask, form  # noqa: E402
from lab.serving.server import Server, served  # noqa: E402

needs_linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux tells")


def test_a_form_holds_the_picture_and_the_fields():
    body, content_type = form(b"\xff\r\n\x00", ["sand", "water, sea"], {"task": "panoptic"})
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    names = [part.get_param("name", header="content-disposition") for part in message.get_payload()]
    parts = list(zip(names, (part.get_payload() for part in message.get_payload()), strict=True))
    assert parts[:3] == [("labels", "sand"), ("labels", "water, sea"), ("task", "panoptic")]
    assert parts[3][0] == "image"
    assert b"\r\n\r\n\xff\r\n\x00\r\n--" in body


@needs_linux
def test_a_processs_cpu_seconds_and_memory_are_those_that_it_uses():
    busy = (
        "import time; x = bytearray(50_000_000)\nwhile time.process_time() < 1: pass\n"
        "print(time.process_time(), flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        used = float(process.stdout.readline())
        server = Server(process.pid, "", 0)
        assert server.cpu_seconds() == pytest.approx(used, abs=0.1)
        assert 50e6 < server.resident_bytes() < 100e6
    finally:
        process.communicate(b"\n")


def test_pictures_are_of_the_size_asked_for():
    from hf_maskadapter.model.pictures import read_picture

    files = load.pictures((48, 32))
    assert len(set(files)) == len(files) == 16
    assert {read_picture(file).size for file in files} == {(48, 32)}


@pytest.mark.slow
@needs_linux
def test_the_comparison_names_every_contender():
    options = load.LoadOptions(clients=(2, 3), batch_sizes=(1, 2), requests=4, rounds=1, size=(320, 32))
    table = load.measure(options)
    for name in ("pipeline, batches of 1", "pipeline, batches of 2", "service, 2 clients", "service, 3 clients"):
        assert re.search(rf"\| {name} \| [\d.]+ \| \d+ %", table), table
    assert "100 %" in table


@pytest.mark.slow
@needs_linux
def test_clients_report_a_refusal_that_is_no_full_queue():
    with served(None, 1) as server, pytest.raises(RuntimeError, match="422"):
        ask(server, [form(load.pictures((320, 32))[0], ["sand", "sand"], {})], 4, 2)


@pytest.mark.slow
@needs_linux
def test_the_memory_of_the_service_stays_flat_over_ten_thousand_requests(capsys):
    table = load.watch_memory(load.LoadOptions(memory_requests=10_000, size=(320, 32)))
    used = [float(number) for number in re.findall(r"([\d.]+) MiB", table)]
    assert len(used) == 20
    with capsys.disabled():
        print(f"\n{table}")
    assert max(used[10:]) < 1.05 * max(used[2:10])
