"""Options, presets and the command line."""

import json
import shlex
from types import SimpleNamespace

import pytest

from hf_maskadapter.cli import train
from hf_maskadapter.training.optimization import LearningRateSchedule
from hf_maskadapter.training.options import PRESETS, PretrainingOptions, RunOptions, TrainingOptions, flat, places

NEEDED = {"stage": "warmup", "model": "m", "dataset": "d", "output_dir": "o"}


def arguments(**options):
    return Found(train.training_options(NEEDED | options))


class Found(SimpleNamespace):
    """Options by their names, whatever group they are in, and what can be asked of them."""

    def __init__(self, options):
        super().__init__(**flat(options))
        self.milestone_steps = options.optimization.milestone_steps
        self.batch_size_per_process = options.optimization.batch_size_per_process
        self.fingerprint = options.fingerprint


def parse_arguments(words):
    return Found(train.parse_options(words))


class TestPresets:
    def test_warm_up_is_the_published_one(self):
        found = arguments(preset="fcclip")
        assert (found.crop_size, found.batch_size, found.max_steps) == (768, 8, 295_717)
        assert (found.learning_rate, found.weight_decay, found.max_grad_norm) == (1e-4, 0.05, 1.0)
        assert (found.lr_scheduler, found.milestone_steps(295_717)) == ("multistep", [260_231, 283_888])
        assert (found.mask_unit, found.scale_range, found.color_augmentation) == ("segment", (0.1, 2.0), False)
        assert arguments(preset="maft").mask_unit == "class"

    def test_mixed_masks_are_the_published_ones(self):
        fcclip, maft = (arguments(stage="mixed", preset=family) for family in ("fcclip", "maft"))
        for found in (fcclip, maft):
            assert (found.crop_size, found.batch_size, found.max_steps) == (1024, 24, 49_286)
            assert (found.iou_threshold, found.consistency_weight, found.class_weight) == (0.7, 5.0, 2.0)
            assert found.max_matches == 8
            assert not found.count_empty_pairs
        assert fcclip.milestone_steps(49_286) == [43_371, 47_314]
        assert (fcclip.weight_decay, fcclip.binarize_threshold, fcclip.detach_target) == (0.05, 0.4, True)
        assert (maft.weight_decay, maft.binarize_threshold, maft.detach_target) == (2e-5, 0.5, False)
        assert (maft.lr_scheduler, maft.lr_power, maft.train_void) == ("polynomial", 0.9, False)

    def test_every_value_of_a_preset_can_be_overridden(self):
        for (stage, family), preset in PRESETS.items():
            for name, value in preset.items():
                other = {"lr_scheduler": "constant", "mask_unit": "class", "milestones": (7,)}.get(name)
                if other is None:
                    other = (not value) if isinstance(value, bool) else value * 2
                assert getattr(arguments(stage=stage, preset=family, **{name: other}), name) == other

    def test_milestones_move_with_the_length_of_the_run(self):
        shorter = arguments(preset="fcclip", max_steps=1000)
        schedule = LearningRateSchedule("multistep", 1000, milestones=shorter.milestone_steps(1000))
        assert shorter.milestone_steps(1000) == [880, 960]
        assert [schedule(step) for step in (879, 880, 960)] == pytest.approx([1, 0.1, 0.01])
        assert arguments(preset="fcclip", num_epochs=3).max_steps is None
        for max_steps in range(1, 6):
            LearningRateSchedule(
                "multistep",
                max_steps,
                milestones=arguments(preset="fcclip", max_steps=max_steps).milestone_steps(max_steps),
            )
        assert arguments(preset="fcclip", max_steps=1000, milestones=[10]).milestone_steps(1000) == [10]

    def test_an_unknown_one_is_an_error(self):
        with pytest.raises(ValueError, match="no preset 'maft' for 'generator'"):
            arguments(stage="generator", preset="maft")


class TestArguments:
    def test_without_a_preset_the_schedule_is_cosine(self):
        assert arguments(max_steps=10).lr_scheduler == "cosine"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "how long"),
            ({"max_steps": 1, "num_epochs": 1}, "how long"),
            ({"num_epochs": 1, "streaming": True}, "no length"),
            ({"max_steps": 1, "lr_scheduler": "multistep"}, "needs milestones"),
            ({"max_steps": 1, "eval_steps": 1}, "validation_split"),
            ({"max_steps": 1, "keep": "best"}, "validation_split"),
            ({"max_steps": 1, "push_to_hub": True}, "hub_model_id"),
            ({"max_steps": 1, "batch_size": 0}, "batch_size"),
            ({"max_steps": 1, "oversample_ratio": 0.5}, "oversample_ratio must be"),
            ({"max_steps": 1, "importance_sample_ratio": 1.5}, "importance_sample_ratio lie in"),
            ({"max_steps": 1, "feature_cache": "f", "feature_cache_gigabytes": 1}, "the same in every epoch"),
            ({"max_steps": 1, "feature_cache": "f", "scale_range": (1, 1), "flip_probability": 0}, "gigabytes"),
            ({"max_steps": 1, "feature_cache": "f", "stage": "generator"}, "adapter's stages"),
        ],
    )
    def test_contradictions_are_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            arguments(**options)

    def test_a_batch_is_divided_among_processes_and_accumulated_batches(self):
        found = arguments(max_steps=1, batch_size=24, gradient_accumulation_steps=3)
        assert found.batch_size_per_process(4) == 2
        with pytest.raises(ValueError, match="multiple of 15"):
            found.batch_size_per_process(5)

    def test_the_fingerprint_holds_what_decides_the_weights(self):
        base = arguments(max_steps=10).fingerprint()
        assert json.loads(json.dumps(base)).keys() == base.keys()
        assert arguments(max_steps=10, logging_steps=3, output_dir="other", num_workers=0).fingerprint() == base
        assert arguments(max_steps=10, adapter_implementation="dense").fingerprint() == base
        assert arguments(max_steps=10, learning_rate=1.0).fingerprint() != base
        assert arguments(max_steps=10, stage="generator").fingerprint() != base
        assert arguments(max_steps=10, model="other").fingerprint() != base
        assert arguments(max_steps=10, model_revision="v2").fingerprint() != base


class TestCommandLine:
    NEEDED = ("--stage", "warmup", "--model", "m", "--dataset", "d", "--output_dir", "o")

    def test_every_argument_is_an_option(self, capsys):
        with pytest.raises(SystemExit):
            parse_arguments(["--help"])
        text = capsys.readouterr().out
        for _, name in places(TrainingOptions):
            assert {"config_name": "--dataset-config", "revision": "--dataset-revision"}.get(
                name, f"--{name.replace('_', '-')}"
            ) in text

    def test_options_are_read(self):
        text = (
            "--preset fcclip --scale_range 0.5 1.5 --no-train_void --ignore_index 255 --learning_rate 3e-4 "
            "--report_to tensorboard --milestones 0.5 100"
        )
        found = parse_arguments([*self.NEEDED, *text.split()])
        assert (found.scale_range, found.train_void, found.ignore_index) == ((0.5, 1.5), False, (255,))
        assert (found.learning_rate, found.report_to, found.max_steps) == (3e-4, ("tensorboard",), 295_717)
        assert found.milestone_steps(10_000) == [5000, 100]

    @pytest.mark.parametrize("wrong", [("--stage", "third"), ("--max_steps", "many"), ("--learningrate", "1"), ()])
    def test_mistakes_end_it_with_a_message(self, wrong, capsys):
        with pytest.raises(SystemExit):
            parse_arguments([*self.NEEDED, *wrong])
        assert "error:" in capsys.readouterr().err

    def test_what_a_run_was_told_can_be_told_again(self):
        """Each option that is not at its default reaches the field of its name."""
        words = "--stage mixed --model m --dataset d --output-dir o --max-steps 7 --iou_threshold=0.5 --num-points 9"
        found = parse_arguments(shlex.split(words))
        assert (found.max_steps, found.iou_threshold, found.num_points) == (7, 0.5, 9)


def test_no_two_groups_of_a_command_have_an_option_of_one_name():
    for kind in (TrainingOptions, PretrainingOptions):
        names = [name for _, name in places(kind)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("max_steps", "save_steps", "interval"),
    [
        (1, None, 1),
        (5, None, 1),
        (10, None, 1),
        (400, None, 40),
        (9_999, None, 1000),
        (295_717, None, 1000),
        (400, 7, 7),
    ],
)
def test_a_run_is_saved_ten_times_or_every_thousand_steps(max_steps, save_steps, interval):
    assert RunOptions(output_dir="o", save_steps=save_steps).saving_interval(max_steps) == interval
