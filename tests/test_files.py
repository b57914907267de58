"""Files and folders that appear complete or not at all, and one writer for each folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hf_maskadapter
from hf_maskadapter.files import FolderInUseError, folder_lock, replacing_folder, write_atomically, write_json

HOLD = """
import sys, time
from pathlib import Path
from hf_maskadapter.files import folder_lock
with folder_lock(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that writes to the folder `out`."""
    environment = os.environ | {"PYTHONPATH": str(Path(hf_maskadapter.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "out"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


class TestFiles:
    def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def fail(file):
            file.write(b"new")
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            write_atomically(path, fail)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    def test_json_is_readable_and_keeps_letters(self, tmp_path):
        write_json(tmp_path / "file.json", {"name": "Bär"})
        assert (tmp_path / "file.json").read_text(encoding="utf-8") == '{"name": "Bär"}\n'


class TestReplacingAFolder:
    def test_takes_the_place_of_the_old_one(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("old")
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "new").write_text("new")
            assert os.listdir(tmp_path / "out") == ["old"]
        assert os.listdir(tmp_path / "out") == ["new"]
        assert os.listdir(tmp_path) == ["out"]

    def test_that_fails_leaves_the_old_one_and_names_it(self, tmp_path):
        def fail():
            with replacing_folder(tmp_path / "a" / "out"):
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match=r"Cannot write .*out: No space left on device"):
            fail()
        assert os.listdir(tmp_path) == []

    def test_by_two_runs_at_once_is_refused(self, tmp_path):
        def twice():
            with replacing_folder(tmp_path / "out"), replacing_folder(tmp_path / "out"):
                pass

        with pytest.raises(FolderInUseError, match=f"out is in use: process {os.getpid()} on "):
            twice()
        assert os.listdir(tmp_path) == []


class TestLock:
    def test_second_run_is_told_who_the_first_one_is(self, tmp_path, other_run):
        with pytest.raises(FolderInUseError) as error, folder_lock(tmp_path / "out", "annotate"):
            pass
        assert str(error.value) == (
            f"{tmp_path}/out is in use: process {other_run.pid} on {socket.gethostname()} writes to it (train). Wait "
            "until it has ended, end it, or choose another folder."
        )
        assert other_run.poll() is None

    def test_is_taken_over_when_its_owner_was_killed(self, tmp_path, other_run):
        other_run.send_signal(signal.SIGKILL)
        other_run.wait()
        assert (tmp_path / "out" / ".lock").exists()
        with folder_lock(tmp_path / "out", "annotate"):
            process, host, purpose = (tmp_path / "out" / ".lock").read_text().splitlines()
        assert (int(process), host, purpose) == (os.getpid(), socket.gethostname(), "annotate")

    def test_leaves_nothing_but_what_was_written(self, tmp_path):
        with folder_lock(tmp_path / "a" / "b", "train"):
            pass
        assert not (tmp_path / "a").exists()
        with folder_lock(tmp_path / "a" / "b", "train") as folder:
            (folder / "result").write_text("result")
        assert os.listdir(tmp_path / "a" / "b") == ["result"]

    def test_one_folder_does_not_keep_from_another(self, tmp_path):
        with folder_lock(tmp_path / "a", "train"), folder_lock(tmp_path / "b", "train"):
            assert json.dumps(sorted(os.listdir(tmp_path))) == '["a", "b"]'

    @pytest.mark.filterwarnings("ignore:flock not supported")
    def test_holds_on_a_file_system_without_locks(self, tmp_path, monkeypatch):
        import fcntl

        def missing(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", missing)
        with folder_lock(tmp_path / "out", "train"):
            assert (tmp_path / "out" / ".lock").read_text().splitlines()[0] == str(os.getpid())
            with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on {socket.gethostname()} writes to it"):
                folder_lock(tmp_path / "out", "annotate").__enter__()
        assert not (tmp_path / "out").exists()
