import itertools

import pytest
import torch
from torch import nn

from splatsense.errors import DataError
from splatsense.training.schedules import OneCycle, WarmupCosine, apply_schedule


def optimizer_of(*peaks):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": peak, "peak_lr": peak} for peak in peaks]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.05), (40, 0.3), (1000, 0.01)])
def test_one_cycle_is_that_of_torch(steps, warmup):
    ours, theirs = optimizer_of(0.005, 0.0005), optimizer_of(0.005, 0.0005)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        theirs, [0.005, 0.0005], total_steps=steps, pct_start=warmup, div_factor=10.0, final_div_factor=1000.0
    )
    for step in range(steps):
        apply_schedule(ours, OneCycle(steps, warmup), step)
        for group, expected in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert group["lr"] == pytest.approx(expected["lr"], rel=1e-9)
            assert group["betas"] == pytest.approx(expected["betas"], rel=1e-9)
        theirs.step()
        if step + 1 < steps:
            reference.step()


def test_warm_up_rises_in_a_line_and_the_cosine_falls_to_nothing():
    schedule = WarmupCosine(100, 0.1)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(first > second for first, second in itertools.pairwise(factors[10:]))
    assert 0 < factors[-1] < 1e-3
    optimizer = optimizer_of(2.0, 1.0)
    apply_schedule(optimizer, schedule, 4)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.5]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)


def test_one_cycle_without_a_warm_up_starts_at_the_peak():
    assert [OneCycle(20, 0.05).factor(0), OneCycle(5, 0.0).factor(0), OneCycle(1).factor(0)] == [1.0, 1.0, 1.0]
    assert OneCycle(5, 0.0).factor(4) == pytest.approx(1e-4)


def test_senseless_schedules_are_refused():
    for steps, warmup in ((0, 0.1), (10, 1.0), (10, -0.1)):
        with pytest.raises(DataError, match="warm-up"):
            WarmupCosine(steps, warmup)
        with pytest.raises(DataError, match="warm-up"):
            OneCycle(steps, warmup)
