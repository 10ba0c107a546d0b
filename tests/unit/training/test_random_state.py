"""Random states survive JSON."""

from __future__ import annotations

import json
import random

import numpy as np
import torch

from aha.training.random_state import random_state, restore_random_state


def draw() -> list[float]:
    return [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.randn(1)), random.random()]


def test_generators_continue_where_they_were() -> None:
    draw()  # Gaussian generators keep a spare number between calls
    saved = json.loads(json.dumps(random_state()))
    expected = [draw() for _ in range(3)]
    restore_random_state(saved)
    assert [draw() for _ in range(3)] == expected
