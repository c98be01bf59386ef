"""Forecast of the cost of a surface, and the grid and samples that fit a budget."""

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
from landscape.surfaces.checks.check_random_axes import PROBES, compared_on, random_samples
from landscape.surfaces.checks.check_slice import checked_samples
from landscape.surfaces.running.precision import COMPARED, in_precision
from landscape.surfaces.running.settings import points_at_once

# Products for a pair of eigenvalues, starting from a neighbour's eigenvectors; measured on digits networks and a ResNet-20.
_PRODUCTS = 30
# Products for both ends of the spectrum from a random vector, to the tolerance of the check of random axes.
_EIGENVALUES = 40
# Fraction of a budget for points; the rest is for the check, figures, and the error of the forecast.
_POINTS = 0.8
# A budget reduces samples to _FEW_SAMPLES, then the grid from _FINE to _COARSE, then samples to _LEAST_SAMPLES, then the grid
# to _COARSEST. With fewer, errors or missing resolution would hide the surface.
_FEW_SAMPLES, _LEAST_SAMPLES = 1024, 128
_ROUNDED = 1 + 1e-12  # tolerance for rounding of a budget that fits exactly
_FINE = {1: 101, 2: 51}
_COARSE = {1: 21, 2: 15}
_COARSEST = {1: 11, 2: 7}
_CLEARLY_SLOWER = 1.1  # two timings of one point differ by less on an idle machine
_GRID = 1024  # number of points for which stacks of points are timed


@dataclass(frozen=True)
class SurfaceForecast:
    """Forecast of the cost of a surface.

    Attributes:
        points: number of grid points.
        seconds: for all points, from one that was timed at the centre.
        memory: peak memory in bytes: the peak of this process (or its GPU) so far, plus the memory of curvature products for
            the check and for eigenvalues. Each point adds only a few hundred bytes.
        random_check: seconds to compare random axes with their expectation; 0 without random axes.
        beside_full: seconds of a point in its precision beside those in full precision; 1.0 for a surface in that.
    """

    points: int
    seconds: float
    memory: int
    random_check: float = 0.0
    beside_full: float = 1.0

    def line(self) -> str:
        """The forecast as text."""
        each = self.seconds / self.points
        check = f"; the check of its random axes about {duration(self.random_check)}" if self.random_check else ""
        return (
            f"{self.points:,} points at {duration(each)} each: about {duration(self.seconds)}, "
            f"at most about {self.memory / 2**30:.1f} GiB{check}{self._slower()}"
        )

    def _slower(self) -> str:
        """What is said of a low precision that costs time."""
        if self.beside_full <= _CLEARLY_SLOWER:
            return ""
        return f"; this precision is slower here, {self.beside_full:.1f} × the time of a point without --precision"


def forecast_surface(
    objective: Objective,
    points: int,
    *,
    test: Objective | None = None,
    batchnorm: BatchNorm = "eval",
    curvature: bool = False,
    precision: str | None = None,
    random_axes: bool = False,
) -> SurfaceForecast:
    """Forecast time and memory of a surface, from its centre.

    Args:
        objective, test, batchnorm, curvature, precision: as for `plane`.
        points: number of grid points.
        random_axes: whether random axes are compared with their expectation.

    Cost: two points, or two stacks of points if many are evaluated at once; with `curvature` also three products, with
        `random_axes` two on the samples of that check.

    Accuracy: limited by other load on the machine; eigenvalues are assumed to take 30 products per point.
    """
    processes, objective, test = objective.group, objective.alone(), None if test is None else test.alone()
    drawn, tested = in_precision(objective, precision), None if test is None else in_precision(test, precision)
    seconds = own = _point(drawn, tested, batchnorm)
    full = own if drawn is objective else _point(objective, test, batchnorm)
    compared = 0.0 if drawn is objective else min(points, COMPARED) * full
    if curvature:
        v = objective.theta
        objective.hvp(v)  # includes the preflight check, and the graph that later products share
        started = time.perf_counter()
        objective.hvp(v)
        # 1.5 products for building the graph at every point.
        seconds += (_PRODUCTS + 1.5) * (time.perf_counter() - started)
    seconds = processes.agreed(points * seconds + compared) / processes.size  # processes divide the points
    check = _random_check(objective, batchnorm, points) if random_axes else 0.0
    memory = _peak(objective) + _products(objective, curvature, check > 0)
    return SurfaceForecast(points, seconds, memory, check, own / full)


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
    random_axes: bool = False,
) -> tuple[int, int]:
    """Choose grid and samples to fit a budget.

    All samples on a fine grid (51 x 51, or 101 points on a line) if that fits. Otherwise fewer samples, down to 1,024; then a
    coarser grid, down to 15 x 15 (21); then fewer samples, down to 128; then a grid down to 7 x 7 (11). The samples are the
    first of the split, the same at every point, and the errors of values account for their number.

    Args:
        budget: seconds for the points.
        dim: 1 or 2.
        objective, test, batchnorm, curvature, precision: as for `plane`; `test` uses at most as many samples as `objective`.
        grid, samples: fixed if given.
        random_axes: as for `forecast_surface`.

    Returns:
        Points on each axis, odd unless given, and samples.

    Raises:
        UsageError: the smallest grid and sample do not fit; the message has a sufficient budget.

    Cost: that of `forecast_surface`, on all samples and on 128: a point takes a + b n seconds for n samples.
    """
    with suppress(NumericalError):
        objective.preflight()  # once for all variants of this objective, and not part of the budget
    there = objective.samples
    drawn, other = in_precision(objective, precision), None if test is None else in_precision(test, precision)
    point = _line(drawn, other, batchnorm, curvature)
    # With another precision, some points are also computed in full precision.
    full = None if drawn is objective else _line(objective, test, batchnorm, False)

    check = each = 0.0
    if random_axes:
        check, each = _cost(objective.subset(random_samples(objective)), lambda o: _random_check(o, batchnorm))

    def total(points: int, n: int) -> float:
        """Seconds of the given number of points on n samples, and of the check of random axes."""
        others = 0.0 if full is None else min(points, COMPARED) * full(n)
        return points * point(n) + others + check + each * min(n, random_samples(objective))

    def room(points: int) -> int:
        """Number of samples that fit."""
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
    """Seconds of a point as a function of its samples; the test set is limited to as many samples."""
    a, b = _cost(objective, lambda o: forecast_surface(o, 1, batchnorm=batchnorm, curvature=curvature).seconds)
    if test is None:
        return lambda n: a + b * n
    there = test.samples
    c, d = _cost(test, lambda o: forecast_surface(o, 1).seconds)
    return lambda n: a + b * n + c + d * min(n, there)


def _cost(objective: Objective, seconds: Callable[[Objective], float]) -> tuple[float, float]:
    """Seconds of a point that do not depend on samples, and seconds per sample."""
    n, few = objective.samples, _LEAST_SAMPLES
    whole = seconds(objective)
    if n <= few:
        return 0.0, whole / n
    part = seconds(objective.subset(few))
    each = max((whole - part) / (n - few), 0.01 * whole / n)  # the lower bound guards against noise in the two times
    return max(0.0, whole - each * n), each


def _too_small(seconds: float, grid: int, samples: int) -> UsageError:
    """The error for a budget that is too small, with a sufficient one."""
    needed = math.ceil(seconds / _POINTS)
    return UsageError(
        f"expected a budget of at least {needed} s, for {grid} points on each axis and {samples} samples, found less",
        fix=f"pass --budget {needed}s",
    )


def _point(objective: Objective, test: Objective | None, batchnorm: BatchNorm) -> float:
    """Seconds of one point at the centre, on the second run; for a large surface, whose points may be evaluated in stacks."""
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


def _random_check(objective: Objective, batchnorm: BatchNorm, points: int | None = None) -> float:
    """Seconds to compare random axes with their expectation, from two products; 0 for a network without products."""
    started = time.perf_counter()
    part = compared_on(objective, batchnorm == "recalibrate" and is_normalized(objective), points)[0]
    with suppress(NumericalError, UsageError, RuntimeError):
        part.hvp(part.theta)  # includes the preflight check, as it will in the run
        between = time.perf_counter()
        part.hvp(part.theta)
        return between - started + (PROBES + _EIGENVALUES) * (time.perf_counter() - between)
    return 0.0


def _peak(objective: Objective) -> int:
    """Peak memory in bytes so far."""
    if objective.device.type == "cuda":
        return torch.cuda.max_memory_allocated(objective.device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _products(objective: Objective, curvature: bool, random_check: bool) -> int:
    """Bytes for curvature products: graphs and copies in float64 for the check, and a Krylov basis for eigenvalues."""
    wide = 8 // objective.theta.element_size()
    check = wide * objective.graph_bytes(checked_samples(objective)) + 12 * 8 * objective.dim
    if not curvature and not random_check:
        return check
    samples = objective.samples if curvature else random_samples(objective)
    return max(check, objective.graph_bytes(samples) + objective.plan.basis(2).bytes)
