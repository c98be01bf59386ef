"""Values at the points of a grid from some of them, with an estimate of how far off they are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

# Two polyharmonic splines of different order: values are taken from the second, and their distance estimates its error.
_KERNELS = ("thin_plate_spline", "quintic")
_NEIGHBOURS = 100  # points that a value is taken from, where there are more than
_MANY = 3000  # points, whose dense system takes seconds


@dataclass(frozen=True)
class Fit:
    """Interpolated values.

    Attributes:
        values: (m,) at the points asked for.
        apart: (m,) distance of the two splines there.
    """

    values: np.ndarray
    apart: np.ndarray


def fit(
    places: Float[np.ndarray, "n d"],
    values: Float[np.ndarray, " n"],
    at: Float[np.ndarray, "m d"],
    logarithms: bool = False,
) -> Fit:
    """Interpolate values by polyharmonic splines.

    Args:
        places: points with known values, in units in which the grid is a unit cube.
        values: finite.
        at: points where values are wanted.
        logarithms: interpolate the logarithms of positive values.

    Raises:
        np.linalg.LinAlgError: the points lie on a line, or too close together.

    Cost: O(n^3 + n m) for up to 3,000 points; beyond that each value is taken from its 100 nearest points.

    Reference: Duchon 1977, "Splines minimizing rotation-invariant semi-norms in Sobolev spaces". Departure: the error is
        estimated by the distance of two splines, which is no bound; points held out measure it.

    Example:
        A quadratic is reproduced by the quintic spline, whose polynomials have degree 2.
        >>> grid = np.linspace(0, 1, 4)
        >>> places = np.array([(a, b) for a in grid for b in grid])
        >>> found = fit(places, places[:, 0] ** 2 - places[:, 1], np.array([[0.5, 0.25]]))
        >>> bool(abs(found.values[0]) < 1e-9), bool(found.apart[0] > 1e-4)
        (True, True)
    """
    if not len(at):
        return Fit(np.zeros(0), np.zeros(0))
    known = np.log(values) if logarithms else values
    pair = np.stack([RBFInterpolator(places, known, _near(places), kernel=kernel)(at) for kernel in _KERNELS])
    if logarithms:
        pair = np.exp(np.minimum(pair, 700.0))  # a spline may overshoot; exp(710) is infinite
    return Fit(pair[1], np.abs(pair[0] - pair[1]))


def suits_logarithms(places: Float[np.ndarray, "n d"], values: Float[np.ndarray, " n"], at: Float[np.ndarray, "m d"]) -> bool:
    """Whether the splines of the logarithms agree better than those of the values, at half of the points or more."""
    if not len(at) or not (values > 0).all():
        return False
    logged, plain = (float(np.median(fit(places, values, at, kind).apart)) for kind in (True, False))
    return logged <= plain


def interpolated_linearly(
    places: Float[np.ndarray, "n d"], values: Float[np.ndarray, " n"], at: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, " m"]:
    """Values of the spline of kernel r, which overshoots little: for what is not smooth."""
    return RBFInterpolator(places, values, _near(places), kernel="linear")(at) if len(at) else np.zeros(0)


def nearest_distance(places: Float[np.ndarray, "n d"], at: Float[np.ndarray, "m d"]) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point from the nearest of `places`, and that one's index."""
    return cKDTree(places).query(at)


def _near(places: np.ndarray) -> int | None:
    """Points that each value is taken from; None for all."""
    return _NEIGHBOURS if len(places) > _MANY else None
