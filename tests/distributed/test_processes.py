"""Processes that begin again when they are killed."""

import os
import signal

import pytest

from hf_maskadapter.distributed.processes import WorkerDiedError, run_processes


def killed_until(path, times: int) -> int:
    """Kills itself so many times, then ends with status 1."""
    if os.environ["OMP_NUM_THREADS"] != "1":
        return 9
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_killed_process_begins_again(tmp_path):
    lines: list[str] = []
    work, files = killed_until, [str(tmp_path / "a"), str(tmp_path / "b")]
    assert run_processes(work, lambda index: (files[index], index), 2, report=lines.append) == [1, 1]
    assert lines == ["process 1 of 2 was ended by signal 9: it begins again"]
    assert [os.path.getsize(file) for file in files] == [1, 2]


def test_a_process_that_is_killed_again_and_again_ends_all(tmp_path):
    with pytest.raises(WorkerDiedError, match="process 0 of 1 was ended 3 times by signal 9"):
        run_processes(killed_until, lambda index: (str(tmp_path / "a"), 99), 1, report=lambda line: None)
    assert os.path.getsize(tmp_path / "a") == 3
