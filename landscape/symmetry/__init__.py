"""The scaling symmetries of a network, found from its traced graph."""

from landscape.symmetry.finding import find_symmetries, symmetries_of
from landscape.symmetry.symmetries import Pinned, Symmetries, Unit

__all__ = ["Pinned", "Symmetries", "Unit", "find_symmetries", "symmetries_of"]
