"""Checks of a line or a plane, printed and stored with it."""

import math

import numpy as np
import torch
from torch import Tensor

from landscape.errors import NumericalError, UsageError
from landscape.objective import Objective
from landscape.results import Derivatives, SliceCheck
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.axes.directions import Direction, cosine, norm_ratios
from landscape.surfaces.batchnorm_statistics import on_plane
from landscape.surfaces.checks.check_derivatives import (
    Near,
    checked_samples,
    compared,
    in_float64,
    rounding_without_kinks,
    unmade,
)
from landscape.surfaces.checks.check_random_axes import check_random_axes

__all__ = ["check_slice", "checked_samples", "difference", "recomputed_places"]


FEW_POINTS = 25  # of a grid


def check_slice(
    objective: Objective,
    directions: tuple[Direction, ...],
    chart: Chart,
    loss: np.ndarray,
    recalibrated: bool = False,
    drawn: Objective | None = None,
    random_check: bool = True,
) -> SliceCheck:
    """Check axes, norms, centre and curvature of a finished slice.

    Args:
        objective: the network on its data.
        directions: the axes.
        chart: its grid, and the BatchNorm statistics on it.
        loss: values on the grid.
        recalibrated: whether BatchNorm statistics were re-estimated at every point. Both curvatures are then those of the loss
            with the statistics of the batch, which depend on the weights.
        random_check: whether to compare random axes with what is expected of them (`check_random_axes`).
        drawn: the objective in the precision of the grid's values, if that differs; centre and recomputed points use it.

    Returns:
        The check. Its curvatures d_i^T H d_j are computed twice, from the surface around its centre and from Hessian-vector
        products. If statistics are interpolated, they come only from the surface, since products hold the statistics fixed.
        If there is no second derivative, they are left out with a reason. The centre is compared to the bit, and one to three
        grid points off the diagonals are computed again.

    Cost: one product per direction, 5 (line) or 13 (plane) evaluations and a gradient, in float64 for every dtype, on at most
        32 samples (4 of more for convolutions); with kinks 2 or 4 more gradients. One evaluation for each recomputed
        point. Random axes: that of `check_random_axes`.

    Accuracy: see `landscape.surfaces.checks.check_derivatives.compared`. A network with a kink exactly at its weights (a unit
        with preactivation 0) has no Hessian there, and fails the check.
    """
    zero = tuple(np.flatnonzero(c == 0.0) for c in chart.coordinates)
    drawn = drawn or objective
    own = drawn.value().value
    theta, buffers = chart.at(chart.centre)
    # Only re-estimated statistics may differ from the checkpoint's; interpolated ones are equal at the centre.
    centre = own if buffers is None or not recalibrated else drawn.evaluate(theta, buffers).loss.value
    exact = None if any(len(z) == 0 for z in zero) else bool(loss[tuple(int(z[0]) for z in zero)] == centre)
    interpolated = buffers is not None and not recalibrated
    return SliceCheck(
        cosine=cosine(*directions) if len(directions) == 2 else None,
        norm_ratio=tuple(norm_ratios(objective, d) for d in directions),
        centre_is_exact=exact,
        centre_value=centre,
        symmetric=all(bool(c[0] == -c[-1]) for c in chart.coordinates),
        derivatives=_derivatives(objective, directions, recalibrated, interpolated),
        own_value=own if recalibrated else None,
        recomputed=_recomputed(drawn, directions, chart, loss),
        precision="" if drawn is objective else drawn.precision,
        random=check_random_axes(objective, directions, recalibrated, interpolated, chart.size) if random_check else None,
    )


def difference(found: list[float], again: list[float]) -> float | None:
    """Largest difference between values and recomputed ones, relative to the largest; None if there are none.

    Losses below 10^-3 have absolute rounding errors: float32 resolves a probability near 1 to 10^-7.
    """
    return float(np.abs(np.subtract(found, again)).max() / max(1e-3, np.abs(again).max())) if found else None


def recomputed_places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The grid points that the check computes again.

    They are chosen without the symmetries of a quadratic: its values there change if axes are swapped or the grid is shifted.
    Three of a plane, two of a line; one of at most `FEW_POINTS`, where each is a noticeable share of the work.
    """
    far, near, half = ([f(n) for n in shape] for f in (lambda n: n - 1 - n // 8, lambda n: n // 4, lambda n: n // 2))
    places: list[tuple[int, ...]]
    if len(shape) == 2:
        places = [(near[0], far[1]), (far[0], shape[1] - 1 - near[1]), (half[0], far[1])]
    else:
        places = [(near[0],), (far[0],)]
    return list(dict.fromkeys(places))[: 1 if math.prod(shape) <= FEW_POINTS else None]


def _recomputed(objective: Objective, directions: tuple[Direction, ...], chart: Chart, loss: np.ndarray) -> float | None:
    """Relative difference between values on the grid and recomputed ones."""
    found, again = [], []
    for index in recomputed_places(loss.shape):
        if np.isfinite(loss[index]):
            at = tuple(float(c[i]) for c, i in zip(chart.coordinates, index, strict=True))
            theta = objective.theta + sum(a * d.vector for a, d in zip(at, directions, strict=True))
            found.append(float(loss[index]))
            again.append(objective.evaluate(theta, chart.statistics(at, theta)).loss.value)
    return difference(found, again)


def _derivatives(
    objective: Objective, directions: tuple[Direction, ...], recalibrated: bool, interpolated: bool
) -> Derivatives:
    """Derivatives of the surface at its centre, with the statistics of the surface, or the reason why there are none."""
    try:
        return _of_centre(objective, directions, recalibrated, interpolated)
    except (NumericalError, UsageError, RuntimeError) as error:  # RuntimeError: PyTorch cannot differentiate an operation
        return unmade(error)


def _of_centre(objective: Objective, directions: tuple[Direction, ...], recalibrated: bool, interpolated: bool) -> Derivatives:
    """Derivatives of the surface at its centre."""
    precise, samples, under = in_float64(objective, recalibrated)
    theta, d = precise.theta, torch.stack([direction.vector.to(precise.theta) for direction in directions])
    product = d @ precise.hvp(d).T
    norms = [float(v.norm()) for v in d]
    lengths = tuple(float(theta.norm()) / norm if norm and bool(theta.any()) else 1.0 for norm in norms)
    if interpolated:
        statistics = on_plane(precise, [direction.buffers for direction in directions], "interpolate")

        def moving(a: Tensor) -> float:
            at = theta + a.to(theta) @ d
            return precise.evaluate(at, statistics(tuple(a.tolist()), at)).loss.value

        reason = "the statistics vary along the axes, but products with H hold them fixed"
        near = Near(moving, None, lengths)
        return compared(near, product, samples=samples, reason=reason, rounding=rounding_without_kinks(precise))
    near = Near(
        lambda a: precise.value(theta + a.to(theta) @ d).value,
        lambda a: d @ precise.gradient(theta + a.to(theta) @ d),
        lengths,
    )
    return compared(near, product, samples=samples, under=under, rounding=rounding_without_kinks(precise))
