"""The comparison of MeanIoU with the Hub's metric runs, checks that both agree, and prints its tables."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evaluate")

from lab.benchmarks import metrics

SCRIPTS = Path(__file__).parents[3] / "scripts"


def test_prints_times_of_both_metrics():
    text = metrics.run(num_images=2, rounds=1, size=64, num_labels=20, memory_images=())
    assert "Opponent: a metric of the Hub's data flow" in text
    assert re.search(r"^\| uint8 \| [\d.]+ \| [\d.]+ \| [\d.]+× \|$", text, re.MULTILINE)
    assert re.search(r"^\| int64 \| [\d.]+ \| [\d.]+ \| [\d.]+× \|$", text, re.MULTILINE)


def run_script(*arguments, **options):
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "metrics", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.slow
def test_the_command_finds_evaluate_though_a_script_has_its_name():
    assert (SCRIPTS / "evaluate.py").is_file()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = run_script("--images", "1", "--rounds", "1", "--memory-images", env=environment, cwd=SCRIPTS)
    assert run.returncode == 0, run.stderr
    assert "| uint8 |" in run.stdout


def test_a_file_that_hides_evaluate_is_named(monkeypatch):
    module = types.ModuleType("evaluate")
    module.__file__ = "somewhere/evaluate.py"
    monkeypatch.setitem(sys.modules, "evaluate", module)
    monkeypatch.delitem(sys.modules, "hf_maskadapter.evaluation.streaming_metric", raising=False)
    with pytest.raises(ImportError, match=r"somewhere/evaluate\.py hides Hugging Face Evaluate"):
        importlib.import_module("hf_maskadapter.evaluation.streaming_metric")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
def test_memory_of_the_streaming_metric_does_not_grow_with_images_and_the_opponents_does():
    few, many = metrics.measure_memory(None, (8, 64), size=256, num_labels=150)
    assert many.spooling - few.spooling > 5
    assert many.streaming - few.streaming < 2
    assert many.spooled > few.spooled > 0


def test_a_disagreement_is_an_error(monkeypatch):
    class Wrong:
        def compute(self, **_):
            return {"mean_iou": 2.0}

    monkeypatch.setattr(metrics, "load_spooling_metric", lambda script, cache_dir: Wrong())
    with pytest.raises(RuntimeError, match="The metrics disagree"):
        metrics.measure_times(None, num_images=1, rounds=1, size=8, num_labels=3, dtypes=("uint8",))


def test_maps_are_areas_with_few_errors_and_some_ignored_pixels():
    predictions, references = map(np.stack, zip(*metrics.draw_maps(4, 128, 20), strict=True))
    assert predictions.max() < 20
    assert 0 < (references == 255).mean() < 0.2
    assert 0.7 < (predictions == references).mean() < 0.98
