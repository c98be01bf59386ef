"""Loss surfaces: directions, grids, paths between minima, and the check that a plot is right."""

from landscape.surfaces.directions import Direction, orthogonal_to, random_direction, toward
from landscape.surfaces.grid import line, plane
from landscape.surfaces.paths import interpolation
from landscape.surfaces.trajectory import trajectory_directions

__all__ = [
    "Direction",
    "interpolation",
    "line",
    "orthogonal_to",
    "plane",
    "random_direction",
    "toward",
    "trajectory_directions",
]
