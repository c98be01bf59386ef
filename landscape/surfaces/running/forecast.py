"""What a surface will cost, before it is begun, and the grid and samples that a budget allows."""

import math
import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from landscape.errors import NumericalError, UsageError
from landscape.machine.progress import duration
from landscape.objective import Objective
from landscape.surfaces.batchnorm_statistics import BatchNorm, is_normalized
from landscape.surfaces.checks.check_slice import checked_samples
from landscape.surfaces.running.precision import COMPARED, in_precision
from landscape.surfaces.running.settings import points_at_once

# Products that a pair of eigenvalues takes from a neighbour's eigenvectors. Measured on digits networks and a ResNet-20.
_PRODUCTS = 30
# Share of a budget for points; the rest is for the check, pictures, and a forecast that was too low.
_POINTS = 0.8
# Below these a picture is no longer one, or its errors hide it; a budget gives up samples first, then points.
_FEW_SAMPLES, _LEAST_SAMPLES = 1024, 128
_ROUNDED = 1 + 1e-12  # so that a budget that fits to the second is not lost to rounding
_FINE = {1: 101, 2: 51}
_COARSE = {1: 21, 2: 15}
_COARSEST = {1: 11, 2: 7}
_GRID = 1024  # points of a surface that is large for stacks


@dataclass(frozen=True)
class SurfaceForecast:
    """What a surface will take.

    Attributes:
        points: on the grid.
        seconds: for all of them, from one that was timed at the centre.
        memory: bytes at the peak: what this process (or its GPU) has held so far, and what curvature products will add, for
            the check and for eigenvalues. It does not grow with the points but for their numbers, a few hundred bytes each.
    """

    points: int
    seconds: float
    memory: int

    def line(self) -> str:
        """In words."""
        each = self.seconds / self.points
        return (
            f"{self.points:,} points at {duration(each)} each: about {duration(self.seconds)}, "
            f"at most some {self.memory / 2**30:.1f} GiB"
        )


def forecast_surface(
    objective: Objective,
    points: int,
    *,
    test: Objective | None = None,
    batchnorm: BatchNorm = "eval",
    curvature: bool = False,
    precision: str | None = None,
) -> SurfaceForecast:
    """Time and memory of a surface, from its centre.

    Args:
        objective, test, batchnorm, curvature, precision: as for `plane`.
        points: of the grid.

    Cost: two points, or stacks of them where many go through the network at once; with `curvature` three products besides.

    Accuracy: as even as the machine is; eigenvalues at a guess of 30 products a point.
    """
    processes, objective, test = objective.group, objective.alone(), None if test is None else test.alone()
    drawn, tested = in_precision(objective, precision), None if test is None else in_precision(test, precision)
    seconds = _point(drawn, tested, batchnorm)
    compared = 0.0 if drawn is objective else min(points, COMPARED) * _point(objective, test, batchnorm)
    if curvature:
        v = objective.theta
        objective.hvp(v)  # the pre-flight check, and the graph that later products share
        started = time.perf_counter()
        objective.hvp(v)
        # Three gradients' worth to build the graph anew at every point.
        seconds += (_PRODUCTS + 1.5) * (time.perf_counter() - started)
    seconds = processes.agreed(points * seconds + compared) / processes.size  # they share the points
    return SurfaceForecast(points, seconds, _peak(objective) + _products(objective, curvature))


def within(
    budget: float,
    dim: int,
    objective: Objective,
    *,
    test: Objective | None = None,
    batchnorm: BatchNorm = "eval",
    curvature: bool = False,
    precision: str | None = None,
    grid: int | None = None,
    samples: int | None = None,
) -> tuple[int, int]:
    """Grid and samples that a budget allows.

    All samples on a fine grid (51 x 51, or 101 points on a line) where that fits; else fewer samples, down to 1,024; then
    a coarser grid, down to 15 x 15 (21); then fewer samples, down to 128; then a grid down to 7 x 7 (11). Samples are the
    first of the split, the same at every point, and every value carries the error that this leaves.

    Args:
        budget: seconds for the points.
        dim: 1 or 2.
        objective, test, batchnorm, curvature, precision: as for `plane`; of `test` no more samples than of `objective`.
        grid, samples: fixed where given.

    Returns:
        Points on an axis, odd unless given, and samples.

    Raises:
        UsageError: not even the least fits; the message says what would.

    Cost: that of `forecast_surface`, on all samples and on 128: a point takes a + b n seconds for n samples.
    """
    with suppress(NumericalError):
        objective.preflight()  # once for all that is derived from this, and no part of the budget for points
    there = objective.samples
    drawn, other = in_precision(objective, precision), None if test is None else in_precision(test, precision)
    point = _line(drawn, other, batchnorm, curvature)
    # In another precision some points are computed in the full one besides.
    full = None if drawn is objective else _line(objective, test, batchnorm, False)

    def total(points: int, n: int) -> float:
        """Seconds of so many points on n samples."""
        return points * point(n) + (0.0 if full is None else min(points, COMPARED) * full(n))

    def room(points: int) -> int:
        """Samples that fit."""
        return bisect_right(range(there + 1), _POINTS * budget * _ROUNDED, key=lambda n: total(points, n)) - 1

    def fitting(low: int, high: int, n: int) -> int | None:
        grids = range(low + 1 - low % 2, high + 1, 2)
        fit = bisect_right(grids, _POINTS * budget * _ROUNDED, key=lambda g: total(g**dim, n))
        return grids[fit - 1] if fit else None

    def too_small(g: int, n: int) -> UsageError:
        return _too_small(total(g**dim, n), g, n)

    most = min(samples or there, there)
    few, least = (most, most) if samples else (min(most, _FEW_SAMPLES), min(most, _LEAST_SAMPLES))
    if grid is not None:
        n = min(most, room(grid**dim))
        if n >= least:
            return grid, n
        raise too_small(grid, least)
    n = min(most, room(_FINE[dim] ** dim))
    if n >= few:
        return _FINE[dim], n
    coarse = fitting(_COARSE[dim], _FINE[dim], few)
    if coarse is not None:
        return coarse, few
    n = min(most, room(_COARSE[dim] ** dim))
    if n >= least:
        return _COARSE[dim], n
    coarsest = fitting(_COARSEST[dim], _COARSE[dim], least)
    if coarsest is None:
        raise too_small(_COARSEST[dim], least)
    return coarsest, least


def _line(objective: Objective, test: Objective | None, batchnorm: BatchNorm, curvature: bool) -> Callable[[int], float]:
    """Seconds of a point by its samples; of the test set it has as many, as far as that goes."""
    a, b = _cost(objective, lambda o: forecast_surface(o, 1, batchnorm=batchnorm, curvature=curvature).seconds)
    if test is None:
        return lambda n: a + b * n
    there = test.samples
    c, d = _cost(test, lambda o: forecast_surface(o, 1).seconds)
    return lambda n: a + b * n + c + d * min(n, there)


def _cost(objective: Objective, seconds: Callable[[Objective], float]) -> tuple[float, float]:
    """Seconds of a point whatever the samples, and for each sample."""
    n, few = objective.samples, _LEAST_SAMPLES
    whole = seconds(objective)
    if n <= few:
        return 0.0, whole / n
    part = seconds(objective.subset(few))
    each = max((whole - part) / (n - few), 0.01 * whole / n)  # two times that noise has turned round
    return max(0.0, whole - each * n), each


def _too_small(seconds: float, grid: int, samples: int) -> UsageError:
    """The refusal of a budget, with one that would do."""
    needed = math.ceil(seconds / _POINTS)
    return UsageError(
        f"expected a budget of at least {needed} s, for {grid} points on an axis and {samples} samples, found less",
        fix=f"pass --budget {needed}s",
    )


def _point(objective: Objective, test: Objective | None, batchnorm: BatchNorm) -> float:
    """Seconds of one point at the centre, the second time; of a large surface, where points may go at once."""
    theta, seconds = objective.theta, math.inf
    objectives = [o for o in (objective, test) if o is not None]
    recalibrates = batchnorm == "recalibrate" and is_normalized(objective)
    size = points_at_once(objectives, _GRID, recalibrates)
    for _ in range(2):
        started = time.perf_counter()
        buffers = objective.recalibrated(theta) if recalibrates else objective.buffers
        for o in objectives:
            if size > 1:
                o.evaluate_many(theta.expand(size, -1))
            else:
                o.evaluate(theta, buffers)
        seconds = time.perf_counter() - started
    return seconds / size


def _peak(objective: Objective) -> int:
    """Bytes that were in use at the highest point so far."""
    if objective.device.type == "cuda":
        return torch.cuda.max_memory_allocated(objective.device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _products(objective: Objective, curvature: bool) -> int:
    """Bytes that curvature products will hold: the check's graphs and copies in float64, and on request a Krylov basis."""
    wide = 8 // objective.theta.element_size()
    check = wide * objective.graph_bytes(checked_samples(objective)) + 12 * 8 * objective.dim
    if not curvature:
        return check
    basis = objective.plan.basis(2).bytes
    return max(check, objective.graph_bytes() + basis)
