"""Paths between minima."""

import numpy as np
import torch

from landscape import progress
from landscape.errors import MismatchError
from landscape.objective import Objective
from landscape.results import Slice
from landscape.surfaces.grid import Recorder, Span, coordinates


def interpolation(
    start: Objective,
    end: Objective,
    *,
    span: Span = (0.0, 1.0),
    grid: int = 31,
    test: Objective | None = None,
) -> Slice:
    """Loss on the straight line between two networks: f(a) = L((1 - a) theta_0 + a theta_1).

    Both ends are exact. BatchNorm's running statistics are interpolated with the weights (a convex combination of variances
    is a variance; beyond the ends it is cut at zero). Both ends are evaluated on the data of `start`.

    Args:
        start: a = 0; its data are used all along.
        end: a = 1; the same architecture.
        span, grid: as in `line`; default 31 points from one end to the other.
        test: an Objective of the same architecture on test data, evaluated at the same points.

    Returns:
        Slice; its `barrier()` is the largest excess over the mean of the two ends.

    Raises:
        MismatchError: the two networks differ in their parameters.

    Cost: one forward pass a point.

    Reference: Goodfellow, Vinyals, Saxe 2015, arXiv:1412.6544; Keskar et al. 2017, arXiv:1609.04836, figure 3.
    """
    if [(e.name, e.shape) for e in start.layout] != [(e.name, e.shape) for e in end.layout]:
        raise MismatchError(
            "expected two networks of one architecture, found different parameters", fix="compare like with like"
        )
    theta0, theta1 = start.theta, end.theta.to(start.theta)
    buffers0, buffers1 = start.buffers, {n: b.to(start.theta) for n, b in end.buffers.items()}
    at = coordinates(span, grid)
    recorder = Recorder((len(at),))
    with progress.stage("interpolation", len(at)) as advance:
        for i, a in enumerate(float(x) for x in at):
            # lerp with a weight of exactly 1 returns its end to the bit, which 0 * theta0 + 1 * theta1 would not for infinities
            point = torch.lerp(theta0, theta1, a)
            buffers = {n: _interpolated(n, buffers0[n], buffers1[n], a) for n in buffers0}
            recorder.put((i,), start.evaluate(point, buffers))
            if test is not None:
                recorder.put((i,), test.evaluate(point, buffers), "test_")
            advance(1)
    provenance = {
        "samples": start.samples,
        "weights": start.dim,
        "dtype": str(start.dtype).removeprefix("torch."),
        "distance": float((theta1 - theta0).norm()),
    }
    if any(name.endswith("running_var") for name in buffers0):
        provenance["batchnorm"] = "statistics interpolated"
    return Slice(
        ("from one minimum (0) to the other (1)",), (np.asarray(at),), recorder.values, recorder.stderr, None,
        "Loss on the line between two minima", provenance,
    )  # fmt: skip


def _interpolated(name: str, a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """One buffer on the way; a running variance never below zero."""
    mixed = torch.lerp(a, b, t)
    return mixed.clamp_min(0.0) if name.endswith("running_var") else mixed
