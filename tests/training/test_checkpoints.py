"""Checkpoints are complete or not there, and damaged ones are found."""

import logging

import pytest

from hf_maskadapter.training.checkpoints import MANIFEST, CheckpointError, CheckpointStore


def write(store, step, content=b"weights"):
    folder = store.begin(step)
    (folder / "part").mkdir()
    (folder / "model.bin").write_bytes(content)
    (folder / "part" / "state.bin").write_bytes(b"state")
    store.commit(step)
    return store.path(step)


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", limit=3)


def test_a_written_checkpoint_is_verified_and_the_latest(store):
    write(store, 5)
    path = write(store, 10)
    store.verify(path)
    assert store.latest() == path
    assert store.steps() == [5, 10]


def test_there_is_none_before_the_first(store):
    assert store.latest() is None
    assert store.steps() == []


def test_what_is_not_committed_is_not_there(store):
    write(store, 5)
    (store.begin(10) / "model.bin").write_bytes(b"half")
    assert store.steps() == [5]
    assert store.latest() == store.path(5)
    write(store, 15)
    assert not store.partial_path(10).exists()


def test_aborting_leaves_nothing(store):
    store.begin(5)
    store.abort(5)
    assert list(store.directory.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.bin").write_bytes(b"Weights"),
        lambda path: (path / "model.bin").write_bytes(b"weig"),
        lambda path: (path / "part" / "state.bin").unlink(),
        lambda path: (path / MANIFEST).write_text("{"),
        lambda path: (path / MANIFEST).unlink(),
    ],
    ids=["changed", "cut off", "file missing", "manifest cut off", "manifest missing"],
)
def test_a_damaged_checkpoint_is_named_and_skipped(store, damage, caplog):
    before, path = write(store, 5), write(store, 10)
    damage(path)
    with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
        store.verify(path)
    with caplog.at_level(logging.WARNING):
        assert store.latest() == before
    assert str(path) in caplog.text


def test_a_damaged_checkpoint_is_written_anew(store):
    path = write(store, 5)
    (path / "model.bin").write_bytes(b"")
    write(store, 5, b"again")
    store.verify(path)
    assert (path / "model.bin").read_bytes() == b"again"


def test_only_the_latest_are_kept_and_those_to_keep(store):
    for step in (1, 2, 3, 4):
        write(store, step)
    assert store.steps() == [2, 3, 4]
    (store.begin(5) / "model.bin").write_bytes(b"")
    store.commit(5, keep={2})
    assert store.steps() == [2, 3, 4, 5]
    assert sorted(entry.name for entry in store.directory.iterdir()) == [store.path(step).name for step in (2, 3, 4, 5)]


def test_a_damaged_later_checkpoint_does_not_drive_out_good_ones(tmp_path):
    store = CheckpointStore(tmp_path, limit=1)
    write(store, 10)
    damaged = CheckpointStore(tmp_path)
    (write(damaged, 20) / "model.bin").write_bytes(b"")
    written = write(store, 15)
    assert store.latest() == written
    assert store.steps() == [15]


def test_a_limit_of_none_keeps_all_and_one_of_zero_is_an_error(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in range(5):
        write(store, step)
    assert store.steps() == list(range(5))
    with pytest.raises(ValueError, match="At least one"):
        CheckpointStore(tmp_path, limit=0)


def test_other_files_are_no_checkpoints(store):
    write(store, 5)
    (store.directory / "step-notes.txt").write_text("")
    assert store.steps() == [5]
