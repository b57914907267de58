"""The measurement for a GPU, tried on the CPU."""

import json

import pytest
import torch

from lab.benchmarks import gpu
from lab.benchmarks.process_memory import can_measure_peaks
from lab.benchmarks.rows.definitions import TINY
from lab.commands import main

needs_peaks = pytest.mark.skipif(not can_measure_peaks(), reason="peak memory is read from Linux' /proc")


@needs_peaks
def test_every_precision_and_batch_size_is_measured_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_CALLS", 1)
    text = gpu.run("cpu", TINY, 5.0, tmp_path, log=lambda line: None)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [(one["precision"], one["batch_size"]) for one in results] == [
        (precision, size) for size in (1, 16) for precision in ("fp32", "tf32", "bf16")
    ]
    for one in results:
        assert one["pictures_per_second"] > 0
        assert one["share_of_peak"] > 0
        assert one["sparse_difference"] < (2e-2 if one["precision"] == "bf16" else 1e-5)
    assert (tmp_path / "gpu.md").read_text() == text + "\n"
    assert text.count("\n| fp32 |") == 2


@needs_peaks
def test_what_the_time_does_not_suffice_for_is_named():
    text = gpu.run("cpu", TINY, -1.0, log=lambda line: None)
    assert "There was no time for fp32 with 1, tf32 with 1, bf16 with 1, fp32 with 16" in text


def test_a_missing_gpu_is_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu", "--quick"]) == 2
    assert "PyTorch finds no GPU here" in capsys.readouterr().err


def test_a_wrong_result_is_an_error(monkeypatch):
    monkeypatch.setattr(gpu, "largest_difference", lambda *_: 1.0)
    with pytest.raises(RuntimeError, match=r"sparse adapter in fp32 differs from the dense one by 1\.0e\+00"):
        gpu.run("cpu", TINY, 5.0, log=lambda line: None)
