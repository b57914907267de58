"""Which part a process takes, and how processes keep out of each other's way."""

import threading

import pytest

from hf_maskadapter.distributed.parts import (
    Part,
    finished_parts,
    mark_finished,
    note_progress,
    part_from_environment,
    part_lock,
    read_progress,
    whole_lock,
)
from hf_maskadapter.files import FolderInUseError


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, None),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, Part(2, 4, 0)),  # torchrun, accelerate launch
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Part(3, 8, 1)),  # srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # the batch script itself, outside any step
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, Part(1, 2)),
    ],
)
def test_the_launcher_tells_the_part(environment, part):
    assert part_from_environment(environment) == part


def test_a_launcher_that_tells_nonsense_is_refused():
    with pytest.raises(ValueError, match="RANK and WORLD_SIZE"):
        part_from_environment({"RANK": "4", "WORLD_SIZE": "4"})


def test_each_unit_belongs_to_exactly_one_part():
    parts = [Part(index, 3) for index in range(3)]
    assert [[part.index for part in parts if part.takes(unit)] for unit in range(7)] == [
        [0],
        [1],
        [2],
        [0],
        [1],
        [2],
        [0],
    ]


def test_two_runs_of_one_part_are_kept_apart_two_parts_are_not(tmp_path):
    with (
        part_lock(tmp_path, Part(0, 2), "annotate"),
        part_lock(tmp_path, Part(1, 2), "annotate"),
        pytest.raises(FolderInUseError, match="00000-of-00002"),
        part_lock(tmp_path, Part(0, 2), "annotate"),
    ):
        pass
    assert list(tmp_path.rglob("*")) == []


def test_the_whole_folder_is_not_worked_on_while_a_part_is_and_the_other_way_round(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskadapter.distributed.parts._PROBING", 0.2)
    with (
        part_lock(tmp_path, Part(1, 2), "annotate"),
        pytest.raises(FolderInUseError, match="00001-of-00002"),
        whole_lock(tmp_path, "annotate"),
    ):
        pass
    with (
        whole_lock(tmp_path, "annotate"),
        pytest.raises(FolderInUseError, match="is in use"),
        part_lock(tmp_path, Part(1, 2), "annotate"),
    ):
        pass


def test_a_lock_is_waited_for(tmp_path):
    held, ended = threading.Event(), []

    def hold():
        with whole_lock(tmp_path, "annotate"):
            held.set()
            threading.Event().wait(0.3)
            ended.append("first")

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with whole_lock(tmp_path, "annotate", wait=10):
        ended.append("second")
    other.join()
    assert ended == ["first", "second"]


def test_the_last_part_sees_that_all_have_ended(tmp_path):
    parts = [Part(0, 2), Part(1, 2)]
    with part_lock(tmp_path, parts[0], "annotate"):
        mark_finished(tmp_path, parts[0], 5, 1)
    assert finished_parts(tmp_path, 2) is None
    with part_lock(tmp_path, parts[1], "annotate"):
        mark_finished(tmp_path, parts[1], 7, 2)
    assert finished_parts(tmp_path, 2) == {"pictures": 12, "failed": 3}
    with part_lock(tmp_path, parts[0], "annotate"):  # it begins again
        assert finished_parts(tmp_path, 2) is None


def test_progress_is_that_of_all_processes(tmp_path):
    assert read_progress(tmp_path, 2) == (0, None)
    for part, done in ((Part(0, 2), 3), (Part(1, 2), 4)):
        (tmp_path / "parts" / part.name).mkdir(parents=True)
        note_progress(tmp_path, part, done, 20)
    assert read_progress(tmp_path, 2) == (7, 20)
