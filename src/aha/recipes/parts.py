"""Where concrete parts meet: stages that sample get the built-in engine."""

from __future__ import annotations

from functools import partial

from aha.evals.scaling_stage import Scaling
from aha.evals.stage import Evaluation
from aha.evals.thinking import Thinking
from aha.inference.engine import Engine
from aha.inference.remote.generator import RemoteGenerator
from aha.rl.trainer import ReinforcementLearning
from aha.stages.preferences import Preferences
from aha.stages.rejection_sampling import RejectionSampling

evaluation = partial(Evaluation, Engine)
reinforcement_learning = partial(ReinforcementLearning, Engine, RemoteGenerator)
preferences = partial(Preferences, Engine)
rejection_sampling = partial(RejectionSampling, Engine)
scaling = partial(Scaling, Engine)
thinking = partial(Thinking, Engine)
