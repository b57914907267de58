"""The metrics give in two real processes (gloo) what they give in one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_maskadapter.cli.errors import leave_process_group
from support.metric_samples import random_instances, random_label_maps, random_panoptic
from support.two_processes import run_by_two_processes

pytest.importorskip("evaluate")
pytest.importorskip("pycocotools")
accelerate = pytest.importorskip("accelerate")

CATEGORIES = {3: True, 5: True, 8: False, 13: False}
# Which of the seven samples each process counts.
SHARDS = {"uneven": [[4, 0, 2, 6, 1], [5, 3]], "one process has nothing": [[], list(range(7))]}


def metrics_and_samples():
    """A metric of each kind with its seven samples."""
    from hf_maskadapter.evaluation import MaskAveragePrecision, MeanIoU, PanopticQuality

    def label_maps(seed):
        predictions, references = random_label_maps(seed, 30, (255,), (255,))
        return predictions[0], references[0]

    return {
        "mean_iou": (MeanIoU(num_labels=30, ignore_index=255), [label_maps(seed) for seed in range(7)]),
        "panoptic_quality": (PanopticQuality(CATEGORIES), [random_panoptic(seed, CATEGORIES) for seed in range(7)]),
        "mask_average_precision": (
            MaskAveragePrecision([3, 5]),
            [random_instances(seed, [3, 5], (24, 31)) for seed in range(7)],
        ),
    }


def evaluate_shard(metrics, shard, accelerator):
    """Counts a shard, saving and restoring the state half way, and sums over processes."""
    results = {}
    for name, (metric, samples) in metrics.items():
        for count, index in enumerate(shard):
            if count == 2:
                state = metric.state_dict()
                metric.reset()
                metric.load_state_dict(state)
            prediction, reference = samples[index]
            metric.add(prediction=prediction, reference=reference, sample_id=index)
        counted = len(metric)
        reduced = metric.reduce(accelerator)
        again = metric.reduce(accelerator)
        assert len(reduced) == len(again) == len(samples)
        assert len(metric) == counted
        results[name] = {key: np.asarray(value).tolist() for key, value in reduced.compute().items()}
    return results


def test_two_processes_with_uneven_shards_give_the_result_of_one_to_the_last_bit(tmp_path):
    single = evaluate_shard(metrics_and_samples(), range(7), accelerate.Accelerator(cpu=True))
    run_by_two_processes(__file__, str(tmp_path))
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        assert results.keys() == SHARDS.keys()
        for division, result in results.items():
            for name, values in single.items():
                for key, value in values.items():
                    np.testing.assert_array_equal(result[name][key], value, err_msg=f"{division}, {name}, {key}")


def main(folder: str) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    results = {
        division: evaluate_shard(metrics_and_samples(), shards[accelerator.process_index], accelerator)
        for division, shards in SHARDS.items()
    }
    Path(folder, f"{accelerator.process_index}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
    leave_process_group()
