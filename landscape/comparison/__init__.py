"""Comparison of groups of minima: tests, effect sizes, rank correlation with generalization, and limits of the conclusions."""

from landscape.comparison.compare import compare
from landscape.comparison.granulated import hyperparameters

__all__ = ["compare", "hyperparameters"]
