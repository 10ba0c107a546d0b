"""The schedule of learning rates, and Muon."""

from __future__ import annotations

import pytest

from aha.training.optimizer import OptimizerConfig, schedule_factor


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("decay_from", "total"), [(0.0, 200), (0.5, 200), (0.5, 21), (0.999, 200)])
def test_the_last_step_has_the_final_rate(schedule: str, decay_from: float, total: int) -> None:
    config = OptimizerConfig(schedule=schedule, decay_from=decay_from, warmup_steps=5, final_lr=0.05)
    factors = [schedule_factor(config, step, total) for step in range(total)]
    assert factors[-1] == 0.05
    assert factors[4] == 1.0
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors.count(0.05) == 1


def test_a_rate_that_never_decays_stays_at_the_peak() -> None:
    never = OptimizerConfig(decay_from=1.0, warmup_steps=0)
    constant = OptimizerConfig(schedule="constant", warmup_steps=0)
    assert schedule_factor(never, 9, 10) == schedule_factor(constant, 9, 10) == 1.0
