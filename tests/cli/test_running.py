"""How scripts end."""

from __future__ import annotations

import gc
import weakref

import pytest
from torch import distributed

from hf_maskadapter.cli.running import leave_process_group, run_script


def fail(error):
    raise error


def test_what_was_done_is_printed(capsys):
    assert run_script(lambda: "done") == 0
    assert capsys.readouterr().out == "done\n"


def test_nothing_is_printed_where_there_is_nothing_to_say(capsys):
    assert run_script(lambda: None) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, ImportError, FloatingPointError, KeyError])
def test_a_mistake_of_the_user_is_one_line(error, capsys):
    assert run_script(lambda: fail(error("mend it")), KeyError) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "mend it" in captured.err
    assert captured.out == ""


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError):
        run_script(lambda: fail(KeyError("name")))


@pytest.mark.parametrize("error", [None, ValueError("mend it"), KeyError("name")])
def test_no_process_stays_in_its_group(error, tmp_path):
    def work():
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
        if error is not None:
            raise error

    try:
        run_script(work)
    except KeyError:
        assert isinstance(error, KeyError)
    assert not distributed.is_initialized()


def test_a_group_in_a_reference_cycle_ends_before_python_does(tmp_path):
    class Trainer:
        def __init__(self):
            distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
            self.group, self.itself = distributed.group.WORLD, self

    gc.disable()
    try:
        trainer = Trainer()
        is_alive = weakref.ref(trainer)
        distributed.destroy_process_group()  # as Accelerate does while the trainer is there
        del trainer
        assert is_alive()
        leave_process_group()
        assert not is_alive()
    finally:
        gc.enable()
