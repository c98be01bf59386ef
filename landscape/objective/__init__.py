"""The loss of a network as a function of its weights: values, gradients and curvature products."""

from landscape.curvature.attention_heads import Head
from landscape.curvature.pairs.pair_gradients import Pairs
from landscape.objective.objective import Objective
from landscape.objective.sample_runs import in_runs

__all__ = ["Head", "Objective", "Pairs", "in_runs"]
