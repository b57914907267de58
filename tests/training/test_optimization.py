"""Parameter groups, schedules and weight averaging."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskadapter.training.optimization import ExponentialMovingAverage, LearningRateSchedule, parameter_groups
from support import toy


class TestLearningRateSchedule:
    def test_multistep_is_the_published_one_of_the_warm_up(self):
        schedule = LearningRateSchedule("multistep", 295_717, milestones=(260_231, 283_888))
        steps = (0, 260_230, 260_231, 283_887, 283_888, 295_716)
        assert [schedule(step) for step in steps] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    def test_polynomial_goes_to_zero(self):
        schedule = LearningRateSchedule("polynomial", 100, power=0.9)
        assert schedule(0) == 1
        assert schedule(50) == pytest.approx(0.5**0.9)
        assert schedule(100) == 0

    def test_cosine_goes_to_zero(self):
        schedule = LearningRateSchedule("cosine", 100)
        assert schedule(0) == 1
        assert schedule(50) == pytest.approx(0.5)
        assert schedule(100) == pytest.approx(0)

    def test_cosine_after_warm_up_begins_where_the_warm_up_ends(self):
        schedule = LearningRateSchedule("cosine_after_warmup", 104, warmup_steps=4)
        assert [schedule(step) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
        assert schedule(54) == pytest.approx(0.5)
        assert schedule(104) == pytest.approx(0)
        assert LearningRateSchedule("cosine_after_warmup", 4, warmup_steps=4)(4) == 1

    def test_warm_up_is_linear_and_does_not_start_at_zero(self):
        schedule = LearningRateSchedule("constant", 100, warmup_steps=4)
        assert [schedule(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]

    @given(
        st.sampled_from(["constant", "multistep", "polynomial", "cosine", "cosine_after_warmup"]),
        st.integers(1, 1000),
        st.integers(0, 2000),
    )
    def test_lies_between_zero_and_one(self, kind, max_steps, step):
        schedule = LearningRateSchedule(kind, max_steps, warmup_steps=max_steps // 3, milestones=(max_steps // 2,))
        assert 0 <= schedule(step) <= 1
        assert math.isfinite(schedule(step))

    @pytest.mark.parametrize(
        "options",
        [{"kind": "linear"}, {"max_steps": 0}, {"warmup_steps": 11}, {"warmup_steps": -1}, {"milestones": (5, 3)}],
    )
    def test_mistakes_are_errors(self, options):
        with pytest.raises(ValueError, match=r"Unknown|at least 1|ascend"):
            LearningRateSchedule(**{"kind": "cosine", "max_steps": 10} | options)


class TestParameterGroups:
    def test_every_trained_parameter_is_in_one_group(self):
        stage = toy.stage("warmup")
        decayed, spared = parameter_groups(stage, 0.05)
        assert decayed["weight_decay"] == 0.05
        assert spared["weight_decay"] == 0
        found = sorted(id(parameter) for group in (decayed, spared) for parameter in group["params"])
        assert found == sorted(map(id, stage.parameters()))
        assert len(spared["params"]) == len(stage.no_weight_decay())

    def test_nothing_to_train_is_an_error(self):
        with pytest.raises(ValueError, match="no parameters"):
            parameter_groups(toy.stage("warmup").requires_grad_(False), 0.05)


class TestExponentialMovingAverage:
    def test_follows_its_formula(self):
        module = torch.nn.Linear(1, 1, bias=False)
        average = ExponentialMovingAverage(module, 0.5)
        expected = module.weight.item()
        for step, value in enumerate((1.0, 2.0, 3.0)):
            module.weight.data.fill_(value)
            average.update(step)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * value
        assert average.state_dict()["weight"].item() == pytest.approx(expected)

    def test_is_applied_for_a_while_only_even_after_an_error(self):
        module = torch.nn.Linear(1, 1, bias=False)
        average = ExponentialMovingAverage(module, 0.9)
        start = module.weight.item()
        module.weight.data.fill_(7.0)

        def fail_within():
            with average.applied():
                assert module.weight.item() == start
                raise KeyError

        with pytest.raises(KeyError):
            fail_within()
        assert module.weight.item() == 7.0

    @pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
    def test_the_decay_lies_between_zero_and_one(self, decay):
        with pytest.raises(ValueError, match="decay"):
            ExponentialMovingAverage(torch.nn.Linear(1, 1), decay)
