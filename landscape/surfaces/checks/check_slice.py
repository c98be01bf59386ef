"""Is the plot right? The evidence that is printed and stored with every line and plane."""

import numpy as np
import torch
from torch import Tensor

from landscape.errors import NumericalError, UsageError
from landscape.objective import Objective
from landscape.results import Derivatives, SliceCheck
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.axes.directions import Direction, norm_ratios
from landscape.surfaces.batchnorm_statistics import on_plane
from landscape.surfaces.checks.check_derivatives import (
    Near,
    checked_samples,
    compared,
    in_float64,
    rounding_without_kinks,
    unmade,
)

__all__ = ["check_slice", "checked_samples", "difference"]


def check_slice(
    objective: Objective,
    directions: tuple[Direction, ...],
    chart: Chart,
    loss: np.ndarray,
    recalibrated: bool = False,
    drawn: Objective | None = None,
) -> SliceCheck:
    """Compare a finished slice with what its axes, norms and centre should be.

    Args:
        objective: what was sliced.
        directions: the axes.
        chart: its grid, and the BatchNorm statistics on it.
        loss: values on the grid.
        recalibrated: whether BatchNorm was re-estimated at every point. Both curvatures are then those of the loss under the
            statistics of the batch, which vary with the weights.
        drawn: the objective whose values are on the grid, where they are in another precision: centre and places are compared
            with what it says.

    Returns:
        The check. Its curvatures d_i^T H d_j come twice, from the surface around its centre and from Hessian-vector products;
        where statistics are interpolated only from the surface, since products hold them while the surface moves them. Where
        there is no second derivative they are left out, and the reason is said: the surface needs none.
        Of the grid, the centre is compared to the bit, and two or three places off its diagonals are computed anew.

    Cost: one product a direction, and 5 (line) or 13 (plane) evaluations and a gradient, in float64 whatever the objective's
        own dtype, on at most 1,024 samples (32 where a processor convolves); with kinks 2 or 4 gradients more. One evaluation
        for each place of the grid.

    Accuracy: see `landscape.surfaces.checks.check_derivatives.compared`. A network with a kink in its very weights (a unit at
        exactly 0 that moves) has no Hessian there, and does not pass.
    """
    vectors = [d.vector.double() for d in directions]
    cosine = None
    if len(vectors) == 2:
        cosine = float(vectors[0] @ vectors[1] / (vectors[0].norm() * vectors[1].norm()))
    zero = tuple(np.flatnonzero(c == 0.0) for c in chart.coordinates)
    drawn = drawn or objective
    own = drawn.value().value
    theta, buffers = chart.at(chart.centre)
    # Only re-estimated statistics may differ from the checkpoint's own; interpolated ones are the same here.
    centre = own if buffers is None or not recalibrated else drawn.evaluate(theta, buffers).loss.value
    exact = None if any(len(z) == 0 for z in zero) else bool(loss[tuple(int(z[0]) for z in zero)] == centre)
    return SliceCheck(
        cosine=cosine,
        norm_ratio=tuple(norm_ratios(objective, d) for d in directions),
        centre_is_exact=exact,
        centre_value=centre,
        symmetric=all(bool(c[0] == -c[-1]) for c in chart.coordinates),
        derivatives=_derivatives(objective, directions, recalibrated, interpolated=buffers is not None and not recalibrated),
        own_value=own if recalibrated else None,
        recomputed=_recomputed(drawn, directions, chart, loss),
        precision="" if drawn is objective else drawn.precision,
    )


def difference(found: list[float], again: list[float]) -> float | None:
    """Largest difference between values and new ones, relative to the largest of them; None without any.

    Losses below 10^-3 have absolute rounding errors: float32 resolves a probability near 1 to 10^-7.
    """
    return float(np.abs(np.subtract(found, again)).max() / max(1e-3, np.abs(again).max())) if found else None


def _recomputed(objective: Objective, directions: tuple[Direction, ...], chart: Chart, loss: np.ndarray) -> float | None:
    """How far values on the grid are from new ones.

    The places have no symmetry of a quadratic: its values there change if the axes are swapped or the grid is shifted.
    """
    far, near, half = ([f(n) for n in loss.shape] for f in (lambda n: n - 1 - n // 8, lambda n: n // 4, lambda n: n // 2))
    places: list[tuple[int, ...]]
    if loss.ndim == 2:
        places = [(near[0], far[1]), (far[0], loss.shape[1] - 1 - near[1]), (half[0], far[1])]
    else:
        places = [(near[0],), (far[0],)]
    found, again = [], []
    for index in dict.fromkeys(places):
        if np.isfinite(loss[index]):
            at = tuple(float(c[i]) for c, i in zip(chart.coordinates, index, strict=True))
            theta = objective.theta + sum(a * d.vector for a, d in zip(at, directions, strict=True))
            found.append(float(loss[index]))
            again.append(objective.evaluate(theta, chart.statistics(at, theta)).loss.value)
    return difference(found, again)


def _derivatives(
    objective: Objective, directions: tuple[Direction, ...], recalibrated: bool, interpolated: bool
) -> Derivatives:
    """Of the surface at its centre, with the statistics that it is drawn with; why there are none where they cannot be had."""
    try:
        return _of_centre(objective, directions, recalibrated, interpolated)
    except (NumericalError, UsageError, RuntimeError) as error:  # what PyTorch itself refuses to differentiate is the last one
        return unmade(error)


def _of_centre(objective: Objective, directions: tuple[Direction, ...], recalibrated: bool, interpolated: bool) -> Derivatives:
    """Of the surface at its centre."""
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

        reason = "the statistics move with the place, and products with H hold them"
        near = Near(moving, None, lengths)
        return compared(near, product, samples=samples, reason=reason, rounding=rounding_without_kinks(precise))
    near = Near(
        lambda a: precise.value(theta + a.to(theta) @ d).value,
        lambda a: d @ precise.gradient(theta + a.to(theta) @ d),
        lengths,
    )
    return compared(near, product, samples=samples, under=under, rounding=rounding_without_kinks(precise))
