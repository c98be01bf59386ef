"""Measures of a sharded network that need values only: forward passes at points along seeded directions."""

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from landscape.errors import UsageError
from landscape.machine import progress
from landscape.measures.perturbation.critical_sharpness import critical_sharpness_along
from landscape.measures.registry import NotDefined
from landscape.results import Estimate, Slice
from landscape.version import __version__

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.sharded.sharded_objective import ShardedObjective


def critical_sharpness(objective: "ShardedObjective", *, halvings: int = 4) -> Estimate:
    """2 / eta_c, eta_c the smallest step against the gradient that raises the loss.

    Args:
        objective: the sharded network.
        halvings: bisections of the bracket.

    Returns:
        Kind "bracket", as `landscape.measures`' measure of this name.

    Raises:
        NotDefined: the gradient is zero.

    Cost: one gradient, and some ten forward passes. Memory of three vectors.

    Reference: arXiv:2601.16979.
    """
    gradient, value = objective.gradient(), objective.value().value
    square = objective.weights.dots((gradient, gradient))[0]
    if not square > 0:
        raise NotDefined("the gradient is zero", fix="there is no direction to step along")
    along = cast("Objective", _Values(objective))
    return critical_sharpness_along(along, -gradient, slope=-square, start=abs(value) / square or 1.0, halvings=halvings)


class _Values:
    """What a search along a line needs of an objective."""

    def __init__(self, objective: "ShardedObjective") -> None:
        self.theta, self.value, self.dtype = objective.theta, objective.value, objective.weights.dtype


def average_sharpness(objective: "ShardedObjective", *, sigma: float = 0.01, draws: int = 16, seed: int = 0) -> Estimate:
    """E L(theta + sigma z) - L(theta) over standard normal z: to second order sigma^2 tr H / 2.

    Every draw is used with both signs, which removes the slope.

    Args:
        objective: the sharded network.
        sigma: standard deviation of the noise on each weight.
        draws: n >= 2; the same for every number of processes.
        seed: of the noise.

    Returns:
        Kind "t", an interval over the draws.

    Raises:
        UsageError: fewer than two draws, or sigma is not positive.

    Cost: 2 n + 1 forward passes. Memory of two vectors.
    """
    if draws < 2 or not 0 < sigma < math.inf:
        raise UsageError(f"expected at least 2 draws and sigma > 0, found {draws} and {sigma}")
    base, rises = objective.value().value, []
    with progress.stage("draws", draws) as advance:
        for i in range(draws):
            noise = sigma * objective.weights.random(seed * 1_000_003 + i, "gaussian")
            ends = [objective.value(objective.theta + sign * noise).value for sign in (1, -1)]
            rises.append(sum(ends) / 2 - base)
            advance(1)
    if not np.isfinite(rises).all():
        return Estimate(math.nan, None, "t", draws, False, "the loss is not finite at a perturbed point")
    return Estimate(float(np.mean(rises)), float(np.std(rises, ddof=1)) / draws**0.5, "t", draws)


def surface(objective: "ShardedObjective", *, seeds: Sequence[int] = (0, 1), grid: int = 11, span: float = 1.0) -> Slice:
    """The loss on theta + a d1 (+ b d2) along random directions with the row norms of the weights.

    A row is what belongs to one output of a linear layer or convolution, so for these layers the directions are
    filter-normalized (Li et al. 2018). Biases, and every other tensor of one dimension, do not move. The directions are drawn
    anew at every point, so none is stored; they do not depend on the number of processes.

    Args:
        objective: the sharded network.
        seeds: one for each axis, one or two.
        grid: number of points along each axis.
        span: the axes reach from -span to span.

    Returns:
        Slice with "loss", without the checks of `landscape.surfaces`.

    Raises:
        UsageError: not one or two seeds, fewer than two points, or a weight is sharded along another dimension.

    Cost: grid or grid^2 forward passes. Memory of three vectors.
    """
    if len(seeds) not in (1, 2) or grid < 2 or not 0 < span < math.inf:
        raise UsageError(f"expected one or two seeds, grid >= 2 and span > 0, found {len(seeds)}, {grid}, {span}")
    steps = np.linspace(-span, span, grid)
    values = np.empty((grid,) * len(seeds))
    with progress.stage("points", values.size) as advance:
        for place in product(range(grid), repeat=len(seeds)):
            point = objective.theta.clone()
            for i, seed in zip(place, seeds, strict=True):
                point += float(steps[i]) * _direction(objective, seed)
            values[place] = objective.value(point).value
            advance(1)
    axes = tuple(f"random, seed {seed}, rows normalized" for seed in seeds)
    provenance = {"landscape": __version__, "torch": torch.__version__, "processes": objective.members.size}
    provenance |= {"dtype": str(objective.weights.dtype).removeprefix("torch."), "weights": objective.dim}
    provenance |= objective.counted
    title = "Loss around the weights, along random directions"
    return Slice(axes, (steps,) * len(seeds), {"loss": values}, {}, None, title, provenance)


def _direction(objective: "ShardedObjective", seed: int) -> torch.Tensor:
    """This process's part of the direction of a seed."""
    return objective.weights.like_rows(objective.weights.random(seed, "gaussian"), objective.theta)
