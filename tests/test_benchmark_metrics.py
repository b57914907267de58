"""The comparison of MeanIoU with the Hub's metric runs, checks that both agree, and prints its tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evaluate")

from hf_maskadapter.benchmarks import metrics


def test_prints_times_of_both_metrics():
    text = metrics.run(num_images=2, rounds=1, size=64, num_labels=20, memory_images=())
    assert "Opponent: a metric of the Hub's data flow" in text
    assert re.search(r"^\| uint8 \| [\d.]+ \| [\d.]+ \| [\d.]+× \|$", text, re.MULTILINE)
    assert re.search(r"^\| int64 \| [\d.]+ \| [\d.]+ \| [\d.]+× \|$", text, re.MULTILINE)


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
