"""Workers are killed at random moments, and the assembled result is that of one process, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_maskadapter import cli
from support.extras import needs_extra

needs_extra("ray", "ray", "psutil")

import psutil  # noqa: E402

pytestmark = pytest.mark.slow
PICTURES = 40
OPTIONS = ["--max-pictures", str(PICTURES), "--format", "coco-instance", "--labels", "red circle, blue square, sand"]
TIMEOUT = 400


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("one")
    assert cli.main(["annotate", "scenes", *OPTIONS, "--device", "cpu", "--output", str(folder / "out")]) == 0
    return contents(folder / "out")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def command(output: Path, *options: str, launcher: tuple[str, ...] = ()) -> list[str]:
    program = [sys.executable, *launcher, "-m", "hf_maskadapter.cli"]
    return [*program, "annotate", "scenes", *OPTIONS, "--device", "cpu", "--output", str(output), *options]


def torchrun(number: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}")


def finished(output: Path) -> int:
    """Complete lines of all journals, but for their heads."""
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in output.rglob("progress.jsonl"))


def wait_for(output: Path, pictures: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + TIMEOUT
    while finished(output) < pictures and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def workers_of(process: subprocess.Popen, word: str) -> list[psutil.Process]:
    """The processes that it started whose command holds a word."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if word in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_ranks_of_torchrun_go_on_in_another_number(tmp_path, expected):
    output = tmp_path / "out"
    run = start(command(output, launcher=torchrun(2)))
    wait_for(output, random.randint(1, PICTURES // 2), run)
    random.choice(workers_of(run, "hf_maskadapter.cli")[-2:]).kill()
    run.communicate(timeout=TIMEOUT)
    assert run.returncode != 0
    again = start(command(output, launcher=torchrun(3)))
    text, _ = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, text
    assert contents(output) == expected


def test_a_killed_process_of_several_begins_again_and_a_killed_parent_takes_all_along(tmp_path, expected):
    output = tmp_path / "out"
    run = start(command(output, "--processes", "2"))
    wait_for(output, random.randint(1, PICTURES // 4), run)
    random.choice(workers_of(run, "spawn_main")).kill()
    wait_for(output, finished(output) + 1, run)
    children = workers_of(run, "spawn_main")
    run.kill()
    run.communicate(timeout=TIMEOUT)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    again = start(command(output, "--processes", "2"))
    wait_for(output, PICTURES // 2, again)
    random.choice(workers_of(again, "spawn_main")).send_signal(signal.SIGKILL)
    text, _ = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, text
    assert "was ended by signal 9: it begins again" in text
    assert contents(output) == expected


def test_ray_does_again_what_a_dead_worker_and_a_dead_node_had(tmp_path, expected, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    output = tmp_path / "out"
    store = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**store, "include_dashboard": False})
    try:
        second = cluster.add_node(**store)
        arguments = ("--engine", "ray", "--workers", "2", "--ray-address", cluster.address)
        run = start(command(output, *arguments))
        wait_for(output, random.randint(1, PICTURES // 4), run)
        actors = [process for process in psutil.process_iter(["cmdline"]) if is_actor(process)]
        assert len(actors) == 2
        random.choice(actors).kill()
        wait_for(output, finished(output) + 1, run)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(**store)
        text, _ = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 0, text
    finally:
        cluster.shutdown()
    assert contents(output) == expected


def is_actor(process: psutil.Process) -> bool:
    return "MapWorker" in " ".join(process.info["cmdline"] or [])


def test_ray_on_this_machine_needs_no_set_up(tmp_path, expected):
    run = start(command(tmp_path / "out", "--engine", "ray", "--workers", "1"))
    text, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 0, text
    assert contents(tmp_path / "out") == expected
