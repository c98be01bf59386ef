"""The symmetries of a network: changes of its weights that keep its function, found from its traced graph."""

from landscape.symmetry.finding import find_symmetries, symmetries_of
from landscape.symmetry.symmetries import Pinned, Symmetries, Unit

__all__ = ["Pinned", "Symmetries", "Unit", "find_symmetries", "symmetries_of"]
