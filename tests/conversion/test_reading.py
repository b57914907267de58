"""Checkpoint files: values that training scripts leave beside the weights, and what is refused without bad advice."""

import pickle

import numpy as np
import pytest
import torch

from hf_maskadapter.conversion.errors import ConversionError
from hf_maskadapter.conversion.reading import read_checkpoint

WEIGHTS = {"a.weight": torch.arange(4.0)}
BESIDE = {
    "best": np.float64(0.5),
    "step": np.int64(3),
    "done": np.bool_(True),
    "half": np.float16(1.5),
    "history": np.arange(3),
    "names": np.array(["a", "b"]),
}


def of_numpy_1(path):
    """The same file as NumPy 1 would have written it, whose functions have another path."""
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("version", [1, 2])
def test_numbers_and_arrays_of_numpy_beside_the_weights_are_read(beside, version, tmp_path):
    path = tmp_path / "checkpoint.pth"
    # The older form is not compressed, so that the file can be made NumPy 1's.
    torch.save({"model": WEIGHTS, beside: BESIDE[beside]}, path, _use_new_zipfile_serialization=version == 2)
    if version == 1:
        of_numpy_1(path)
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.state) == ["a.weight"]
    assert torch.equal(checkpoint.state["a.weight"], WEIGHTS["a.weight"])
    assert list(checkpoint.ignored) == [beside]


class Harmful:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize(
    "content",
    [{"model": WEIGHTS, "x": np.array([Harmful()], dtype=object)}, {"model": WEIGHTS, "x": Harmful()}, {"x": slice(3)}],
    ids=["an object in an array", "code", "an object of Python's"],
)
def test_what_could_run_code_is_refused_without_advice_to_switch_safety_off(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pth")
    assert_refused_without_advice(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("content", [b"\x80\x02garbage", pickle.dumps({"a": 1})[:-3], b"PK\x03\x04 nothing"])
def test_a_damaged_file_is_refused_without_advice_to_switch_safety_off(content, tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(content)
    assert_refused_without_advice(tmp_path / "checkpoint.pth")


def assert_refused_without_advice(path):
    with pytest.raises(ConversionError, match=r"checkpoint\.pth") as caught:
        read_checkpoint(path)
    error: BaseException | None = caught.value
    while error is not None and not error.__suppress_context__:
        assert "weights_only" not in str(error)
        error = error.__cause__
    assert "weights_only" not in str(caught.value)
