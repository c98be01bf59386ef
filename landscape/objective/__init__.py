"""The one face of all that is computed of a network: values, gradients and curvature products of one loss."""

from landscape.objective.objective import Objective

__all__ = ["Objective"]
