"""Loss surfaces: directions, charts, runs that can be interrupted and continued, paths between minima, and checks."""

from landscape.surfaces.axes.chart import fitted_span
from landscape.surfaces.axes.curve import Curve, train_curve
from landscape.surfaces.axes.directions import Direction, eigenvector_directions, orthogonal_to, random_direction, toward
from landscape.surfaces.axes.trajectory import project, trajectory_directions
from landscape.surfaces.grid import line, plane
from landscape.surfaces.paths import interpolation
from landscape.surfaces.running.forecast import SurfaceForecast, forecast_surface, within
from landscape.surfaces.running.run_directory import agreed, store_directions, stored_directions
from landscape.surfaces.topology import merge_tree

__all__ = [
    "Curve",
    "Direction",
    "SurfaceForecast",
    "agreed",
    "eigenvector_directions",
    "fitted_span",
    "forecast_surface",
    "interpolation",
    "line",
    "merge_tree",
    "orthogonal_to",
    "plane",
    "project",
    "random_direction",
    "store_directions",
    "stored_directions",
    "toward",
    "train_curve",
    "trajectory_directions",
    "within",
]
