"""Evaluation of an Objective on a line or a plane through its trained weights."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape import progress
from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.results import Evaluation, Slice
from landscape.surfaces.check import check_slice
from landscape.surfaces.directions import Direction, random_direction

Span = tuple[float, float]


def line(
    objective: Objective,
    direction: Direction | None = None,
    *,
    span: Span = (-1.0, 1.0),
    grid: int = 51,
    seed: int = 0,
    test: Objective | None = None,
) -> Slice:
    """Loss along one direction: f(a) = L(theta + a d).

    Args:
        objective: at the trained weights theta.
        direction: d; default a filter-normalized random one from `seed`.
        span: first and last a.
        grid: number of points; an odd number on a symmetric span has theta itself in the middle.
        seed: of the random direction.
        test: an Objective of the same network on other data, evaluated at the same points.

    Returns:
        Slice with "loss" and "accuracy" (and "test_..."), standard errors over samples, and the check of its axes.

    Raises:
        UsageError: fewer than two points, or a span that is not finite or not increasing.

    Cost: one forward pass a point, and two Hessian-vector products for the check.

    Reference: Goodfellow, Vinyals, Saxe 2015, arXiv:1412.6544; Li et al. 2018, arXiv:1712.09913. BatchNorm keeps its trained
        statistics.
    """
    return _slice(objective, (direction or random_direction(objective, seed=seed),), (span,), (grid,), test, seed)


def plane(
    objective: Objective,
    directions: tuple[Direction, Direction] | None = None,
    *,
    span: Span | tuple[Span, Span] = (-1.0, 1.0),
    grid: int | tuple[int, int] = (51, 51),
    seed: int = 0,
    test: Objective | None = None,
) -> Slice:
    """Loss on a plane: f(a, b) = L(theta + a d1 + b d2), values indexed [a, b].

    Args:
        objective: at the trained weights theta.
        directions: d1 and d2; default two filter-normalized random ones from `seed` and `seed + 1`. They are not made
            orthogonal: in high dimension they nearly are, and the check prints their cosine.
        span: of both axes, or one each.
        grid: points on each axis.
        seed, test: as in `line`.

    Returns:
        Slice, as `line`.

    Raises:
        UsageError: as `line`.

    Cost: one forward pass a point, and three Hessian-vector products for the check.

    Reference: Li et al. 2018, arXiv:1712.09913, section 4.
    """
    if directions is None:
        directions = (random_direction(objective, seed=seed), random_direction(objective, seed=seed + 1))
    spans = span if isinstance(span[0], Sequence) else (span, span)
    grids = (grid, grid) if isinstance(grid, int) else grid
    return _slice(objective, directions, spans, grids, test, seed)


def coordinates(span: Span, points: int) -> np.ndarray:
    """Evenly spaced points over the span; exactly antisymmetric, with an exact 0 in the middle, if the span is symmetric."""
    low, high = float(span[0]), float(span[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"expected a span of two increasing finite numbers, found {low:g} to {high:g}", fix="pass --span -1 1")
    if points < 2:
        raise UsageError(f"expected a grid of at least 2 points on each axis, found {points}", fix="pass --grid 51")
    values = np.linspace(low, high, points)
    return (values - values[::-1]) / 2 if low == -high else values


class Recorder:
    """Collects evaluations into arrays of one shape, under the names that a Slice uses."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.values: dict[str, np.ndarray] = {}
        self.stderr: dict[str, np.ndarray] = {}

    def put(self, index: tuple[int, ...], evaluation: Evaluation, prefix: str = "") -> None:
        """Store one point's loss and accuracy."""
        for name, estimate in (("loss", evaluation.loss), ("accuracy", evaluation.accuracy)):
            if estimate is None:
                continue
            self.values.setdefault(prefix + name, np.full(self.shape, np.nan))[index] = estimate.value
            if estimate.stderr is not None:
                self.stderr.setdefault(prefix + name, np.full(self.shape, np.nan))[index] = estimate.stderr


def _slice(
    objective: Objective,
    directions: tuple[Direction, ...],
    spans: tuple[Span, ...],
    grids: tuple[int, ...],
    test: Objective | None,
    seed: int,
) -> Slice:
    """Evaluate all points of the grid and check the result."""
    objective.preflight()
    axes = tuple(coordinates(s, g) for s, g in zip(spans, grids, strict=True))
    recorder = Recorder(tuple(len(c) for c in axes))
    theta = objective.theta
    with progress.stage("line" if len(axes) == 1 else "plane", math.prod(recorder.shape)) as advance:
        for index in np.ndindex(*recorder.shape):
            point = _point(theta, directions, [float(c[i]) for c, i in zip(axes, index, strict=True)])
            recorder.put(index, objective.evaluate(point))
            if test is not None:
                recorder.put(index, test.evaluate(point), "test_")
            advance(1)
    check = check_slice(objective, directions, axes, recorder.values["loss"])
    provenance: dict[str, Any] = {
        "samples": objective.samples,
        "weights": objective.dim,
        "dtype": str(objective.dtype).removeprefix("torch."),
        "seed": seed,
    }
    if any(name.endswith("running_var") for name in objective.buffers):
        provenance["batchnorm"] = "statistics of the centre"
    title = f"Loss {'along a direction' if len(axes) == 1 else 'on a plane'} through the trained weights"
    return Slice(tuple(d.name for d in directions), axes, recorder.values, recorder.stderr, check, title, provenance)


def _point(theta: Float[Tensor, " P"], directions: tuple[Direction, ...], at: list[float]) -> Float[Tensor, " P"]:
    """theta + sum_i a_i d_i; to the bit theta itself where every a_i is 0."""
    point = theta.clone()
    for direction, a in zip(directions, at, strict=True):
        torch.add(point, direction.vector, alpha=a, out=point)
    return point
