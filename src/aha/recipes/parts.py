"""Where concrete parts meet: stages that sample get the built-in engine."""

from __future__ import annotations

from aha.evals.scaling_stage import Scaling
from aha.evals.stage import Evaluation
from aha.inference.engine import Engine
from aha.rl.trainer import ReinforcementLearning
from aha.stages.preferences import Preferences
from aha.stages.rejection_sampling import RejectionSampling


class EngineEvaluation(Evaluation):
    """Held-out evaluation through the built-in engine."""

    def __init__(self) -> None:
        super().__init__(Engine)


class EngineReinforcementLearning(ReinforcementLearning):
    """Reinforcement learning with rollouts from the built-in engine."""

    def __init__(self) -> None:
        super().__init__(Engine)


class EngineRejectionSampling(RejectionSampling):
    """Rejection sampling through the built-in engine."""

    def __init__(self) -> None:
        super().__init__(Engine)


class EnginePreferences(Preferences):
    """Responses and comparisons through the built-in engine."""

    def __init__(self) -> None:
        super().__init__(Engine)


class EngineScaling(Scaling):
    """Test-time scaling through the built-in engine."""

    def __init__(self) -> None:
        super().__init__(Engine)
