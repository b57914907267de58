"""How commands end: an exit status, and in one line what went wrong."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import weakref

import pytest
from torch import distributed

from hf_maskadapter.cli.errors import UserError, leave_process_group, run_to_status


def fail(error):
    raise error


def test_a_commands_own_status_is_its_exit_status():
    assert run_to_status("maskadapter x", lambda: 1) == 1


@pytest.mark.parametrize("error", [UserError, ValueError, FileNotFoundError, ImportError, FloatingPointError])
def test_a_mistake_of_the_user_is_one_line_and_status_2(error, capsys):
    assert run_to_status("maskadapter x", lambda: fail(error("mend\nit"))) == 2
    captured = capsys.readouterr()
    assert captured.err == "maskadapter x: error: mend it\n"
    assert captured.out == ""


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    assert run_to_status("maskadapter x", (tmp_path / "no.txt").read_text) == 2
    assert capsys.readouterr().err == f"maskadapter x: error: {tmp_path}/no.txt: No such file or directory\n"


def test_a_missing_library_gets_a_hint_and_a_missing_file_of_ours_none(capsys):
    missing = ModuleNotFoundError("No module named 'accelerate'", name="accelerate")
    assert run_to_status("maskadapter x", lambda: fail(missing), "eval") == 2
    expected = "maskadapter x: error: No module named 'accelerate': pip install 'hf-maskadapter[eval]'\n"
    assert capsys.readouterr().err == expected
    ours = ModuleNotFoundError("No module named 'hf_maskadapter.nothing'", name="hf_maskadapter.nothing")
    with pytest.raises(ModuleNotFoundError):
        run_to_status("maskadapter x", lambda: fail(ours), "eval")


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError):
        run_to_status("maskadapter x", lambda: fail(KeyError("name")))


def test_ctrl_c_is_one_line_and_status_130(capsys):
    assert run_to_status("maskadapter x", lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "maskadapter x: interrupted\n"


def test_an_interruption_may_say_how_to_go_on(capsys):
    assert run_to_status("maskadapter x", lambda: fail(KeyboardInterrupt("saved at step 4"))) == 130
    assert capsys.readouterr().err == "maskadapter x: saved at step 4\n"


def test_sigterm_is_one_line_and_status_143_and_its_handler_goes_with_the_command(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert run_to_status("maskadapter x", lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "maskadapter x: terminated\n"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("error", [None, ValueError("mend it"), KeyError("name")])
def test_no_process_stays_in_its_group(error, tmp_path):
    def work():
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
        if error is not None:
            raise error
        return 0

    try:
        run_to_status("maskadapter x", work)
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


def test_pytorch_is_not_imported_again_where_its_import_was_interrupted(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")  # as Python leaves it; torch.distributed stays
    assert "torch.distributed" in sys.modules
    leave_process_group()
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("error", [ImportError, SystemError, AttributeError])
def test_an_interruption_that_a_library_makes_another_error_of_is_still_one(number, status, word, error, capsys):
    """As where it comes while an extension module is imported."""

    def work():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise error("cannot import half a module") from None

    assert run_to_status("maskadapter x", work) == status
    assert capsys.readouterr().err == f"maskadapter x: {word}\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_was_swallowed_ends_a_training_before_its_first_step(number, status):
    from hf_maskadapter.training.interruption import StopSignals

    def work():
        with contextlib.suppress(BaseException):  # as a library's bare except does
            signal.raise_signal(number)
        with StopSignals():
            return 0

    assert run_to_status("maskadapter x", work) == status


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_to_status("maskadapter x", lambda: signal.raise_signal(signal.SIGINT) or 7) == 7
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handlers_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_to_status("maskadapter x", lambda: 0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
