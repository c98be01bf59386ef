"""Comparison of groups of minima: tests, effect sizes, rank correlation with generalization, and limits of the conclusions."""

from landscape.comparison.compare import compare
from landscape.comparison.granulated import hyperparameters
from landscape.comparison.memorized_runs import memorizes
from landscape.comparison.partial import CONTROLS, refuse_unknown

__all__ = ["CONTROLS", "compare", "hyperparameters", "memorizes", "refuse_unknown"]
