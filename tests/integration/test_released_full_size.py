"""A released model at its full size, from a Hub on loopback: the first use and the second, and what comes between.

What it takes is printed: `pytest -n 0 -s -m slow tests/integration/test_released_full_size.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from hf_maskadapter.conversion.tokenizer import build_clip_tokenizer
from hf_maskadapter.hub.released_models import RELEASED, REPOSITORY
from support.commands import ENVIRONMENT
from support.full_size_checkpoint import MANIFEST, mapped_blob, write_full_size_checkpoint
from support.hub_server import Blob, Fault, LocalHub

SHARED = os.environ.get("MASKADAPTER_SHARED")
TESTS = Path(__file__).parents[1]
SCENE = TESTS.parent / "examples" / "scene.png"
FILE = RELEASED["fcclip-large"].file
HOUSEHOLD_LINE = 100e6 / 8
"""Bytes a second of a line of 100 Mbit/s."""
MEBIBYTE = 2**20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SHARED and MANIFEST.is_file()),
        reason="MASKADAPTER_SHARED and MASKADAPTER_FIXTURES name no folders with CLIP's tokenizer and the manifests",
    ),
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell anonymous memory"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("release") / FILE
    write_full_size_checkpoint(path)
    yield path
    path.unlink()


@pytest.fixture
def hub(checkpoint):
    """A Hub with the release and CLIP's tokenizer."""
    bpe_file = Path(SHARED, "data", "clip_bpe", "bpe_simple_vocab_16e6.txt.gz")
    with tempfile.TemporaryDirectory() as folder:
        build_clip_tokenizer(bpe_file).save_pretrained(folder)
        tokenizer = {path.name: Blob(path.read_bytes(), False) for path in Path(folder).iterdir()}
    hub = LocalHub({})
    with hub.running():
        hub.publish(REPOSITORY, {FILE: mapped_blob(checkpoint), "README.md": Blob(b"weights", False)})
        hub.publish("openai/clip-vit-base-patch32", tokenizer)
        yield hub


@pytest.fixture
def home(tmp_path):
    """An empty cache, which is removed afterwards."""
    yield tmp_path / "home"
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


class Command:
    """A `maskadapter` command in a fresh process, whose standard error is a terminal."""

    def __init__(self, hub: LocalHub, home: Path, *arguments: object, preparation: str = "") -> None:
        self.report = home.parent / f"report-{time.monotonic_ns()}.json"
        environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(TESTS)])
        code = f"{preparation}\nimport sys; from support.measured_command import main; sys.exit(main())"
        terminal, end = pty.openpty()
        termios.tcsetwinsize(end, (24, 120))  # without rows, there is no progress bar
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(self.report), *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=end,
            text=True,
        )
        os.close(end)
        self._terminal = terminal
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while piece := os.read(self._terminal, 65536):
                self._pieces.append(piece)

    def finish(self) -> Command:
        """Wait for the end."""
        try:
            self.stdout, _ = self._process.communicate(timeout=1800)
        finally:
            self._process.kill()
        self.seconds = time.monotonic() - self._begin
        self._reader.join(10)
        os.close(self._terminal)
        self.status = self._process.returncode
        self.stderr = b"".join(self._pieces).decode()
        return self

    @property
    def stages(self) -> dict[str, dict[str, float]]:
        """What each stage took; memory beyond that of the imports."""
        report = json.loads(self.report.read_text())
        return {
            stage["stage"]: stage | {"memory": stage["peak"] - report["after_imports"]} for stage in report["stages"]
        }


def run(*arguments: object, **options: object) -> Command:
    return Command(*arguments, **options).finish()


def downloads(hub: LocalHub) -> list[int]:
    """Where each download of the checkpoint began."""
    ranges = (headers.get("Range") for method, path, headers in hub.requests if method == "GET" and "/lfs/" in path)
    return [0 if text is None else int(re.match(r"bytes=(\d+)", text)[1]) for text in ranges]


def tell(title: str, stage: dict[str, float]) -> None:
    print(
        f"\n{title}: {stage['seconds']:.1f} s, {stage['cpu_seconds']:.1f} CPU s, "
        f"{stage['memory'] / MEBIBYTE:.0f} MiB of anonymous memory above that after imports"
    )


def test_one_command_from_an_empty_cache_to_a_picture_and_again_without_the_hub(hub, home, checkpoint, tmp_path):
    hub.bytes_per_second = HOUSEHOLD_LINE
    words = [SCENE, "--model", "fcclip-large", "--labels", "star, water, sand", "--device", "cpu", "--output"]
    first = run(hub, home, "segment", *words, tmp_path / "first.png")
    assert first.status == 0, first.stderr
    lines = re.split(r"[\r\n]+", first.stderr)
    assert "Apache-2.0" in lines[0]
    assert "1.67 GB to download" in lines[0]
    assert str(home / "maskadapter" / "fcclip-large-1") in lines[0]
    shares = [int(match[1]) for line in lines if (match := re.search(rf"{FILE}: +(\d+)%", line))]
    assert shares == sorted(shares)
    assert len(set(shares)) > 10
    assert downloads(hub) == [0]
    shown = [match[1] for line in lines if (match := re.match(r"(\w+): +\d+%\|.*/4 ", line))]
    assert list(dict.fromkeys(shown)) == ["reading", "renaming", "writing", "checking"]
    converting = first.stages["Converting"]
    assert converting["memory"] <= 1.25 * checkpoint.stat().st_size

    requests = len(hub.requests)
    hub.fail("GET", "", 503, times=10_000)
    hub.fail("HEAD", "", 503, times=10_000)
    second = run(hub, home, "segment", *words, tmp_path / "second.png")
    assert second.status == 0, second.stderr
    assert len(hub.requests) == requests
    assert "Converting" not in second.stderr
    assert "to download" not in second.stderr
    with Image.open(tmp_path / "first.png") as one, Image.open(tmp_path / "second.png") as other:
        assert one.tobytes() == other.tobytes()
    tell("download at 100 Mbit/s, verification", first.stages["Mask-Adapter"])
    tell("conversion", converting)
    tell("loading and the first mask, first use", first.stages["Ready"])
    tell("loading and the first mask, second use", second.stages["command"])
    print(f"in all: {first.seconds:.1f} s at first, {second.seconds:.1f} s from then on")
    weights = sum(path.stat().st_size for path in (home / "maskadapter").rglob("*.safetensors"))
    assert second.stages["command"]["memory"] < 0.6 * weights  # they are mapped
    assert second.seconds < first.seconds / 2


def test_a_broken_download_is_continued_by_two_at_once_who_convert_once(hub, home, checkpoint):
    size = checkpoint.stat().st_size
    hub.faults += [Fault("GET", "/lfs/", keep=600_000_000), Fault("GET", "/lfs/", status=503, times=100)]
    broken = run(hub, home, "models", "--fetch", "fcclip-large")
    assert broken.status == 2
    assert "broke off: the Hub cannot answer now (status 503" in broken.stderr
    (partial,) = (home / "maskadapter").rglob("*.partial")
    arrived = partial.stat().st_size
    assert 500_000_000 < arrived <= 600_000_000
    hub.faults.clear()
    hub.requests.clear()

    both = [Command(hub, home, "models", "--fetch", "fcclip-large") for _ in range(2)]
    for command in both:
        command.finish()
    assert [command.status for command in both] == [0, 0]
    assert downloads(hub) == [arrived]
    assert sorted("Converting" in command.stderr for command in both) == [False, True]
    assert "waiting for it" in next(command.stderr for command in both if "Converting" not in command.stderr)
    assert both[0].stdout == both[1].stdout
    folder = Path(both[0].stdout.strip())
    found = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert 4 * RELEASED["fcclip-large"].num_parameters < found < size
    assert not list(folder.parent.glob(".*.download"))

    removed = run(hub, home, "models", "--remove", "fcclip-large")
    assert removed.stdout == f"freed {found / 1e6:.1f} MB\n"
    assert not folder.exists()


def test_a_file_with_one_wrong_byte_is_refused_and_deleted(hub, home, checkpoint, tmp_path):
    blob = mapped_blob(checkpoint)
    wrong = tmp_path / "wrong.pth"
    shutil.copyfile(checkpoint, wrong)
    with wrong.open("r+b") as file:
        file.seek(1_000_000_000)
        byte = file.read(1)
        file.seek(1_000_000_000)
        file.write(bytes([byte[0] ^ 1]))
    hub.objects[blob.sha256] = mapped_blob(wrong).content
    wrong.unlink()
    refused = run(hub, home, "models", "--fetch", "fcclip-large")
    assert refused.status == 2
    assert "is damaged: its checksum is" in refused.stderr
    assert "Converting" not in refused.stderr
    assert not [path for path in (home / "maskadapter").rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        (
            "import shutil; before = shutil.disk_usage\n"
            "shutil.disk_usage = lambda folder: before(folder)._replace(free=3_000_000_000)",
            "needs 3.43 GB in .*there are 3.00 GB free",
        ),
        (
            "import hf_maskadapter.loading as loading; loading.available_memory = lambda: 2_000_000_000",
            "may need 2.09 GB of memory, and 2.00 GB are free",
        ),
    ],
    ids=["full disk", "little memory"],
)
def test_too_little_room_is_told_before_the_download(hub, home, preparation, message):
    refused = run(hub, home, "models", "--fetch", "fcclip-large", preparation=preparation)
    assert refused.status == 2
    assert re.search(message, refused.stderr)
    assert downloads(hub) == []


def test_without_network_the_first_use_says_so(hub, home, tmp_path):
    class Nowhere:
        url = "http://127.0.0.1:9"

    output = tmp_path / "out.png"
    refused = run(Nowhere, home, "segment", SCENE, "--model", "fcclip-large", "--labels", "star", "--output", output)
    assert refused.status == 2
    assert "the Hub cannot be reached" in refused.stderr
    assert not output.exists()
