"""Is the plot right? The evidence that is printed and stored with every surface."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.results import SliceCheck
from landscape.surfaces.chart import Chart
from landscape.surfaces.directions import Direction, norm_ratios

# Samples that both curvatures are taken on, where there are more: in float64 their cost would exceed that of many points.
SAMPLES = 1024


def check_slice(
    objective: Objective, directions: tuple[Direction, ...], chart: Chart, loss: np.ndarray, recalibrated: bool = False
) -> SliceCheck:
    """Compare a finished slice with what its axes, norms and centre should be.

    Args:
        objective: what was sliced.
        directions: the axes.
        chart: its grid, and the BatchNorm statistics on it.
        loss: values on the grid.
        recalibrated: whether BatchNorm was re-estimated at every point. Both curvatures are then those of the loss under the
            statistics of the batch, which vary with the weights.

    Returns:
        The check; its curvatures d_i^T H d_j come twice, from second differences of the surface and from Hessian-vector
        products.

    Cost: one product a direction, and 2 (line) or 8 (plane) evaluations, in float64 whatever the objective's own dtype, on
        at most 1,024 samples.
    """
    vectors = [d.vector.double() for d in directions]
    cosine = None
    if len(vectors) == 2:
        cosine = float(vectors[0] @ vectors[1] / (vectors[0].norm() * vectors[1].norm()))
    zero = tuple(np.flatnonzero(c == 0.0) for c in chart.coordinates)
    own = objective.value().value
    theta, buffers = chart.at(chart.centre)
    centre = own if buffers is None else objective.evaluate(theta, buffers).loss.value
    exact = None if any(len(z) == 0 for z in zero) else bool(loss[tuple(int(z[0]) for z in zero)] == centre)
    part = objective if objective.samples <= SAMPLES else objective.subset(SAMPLES)
    precise = part.to("float64")
    if recalibrated:
        precise = next(precise.minibatches(precise.samples, torch.Generator().manual_seed(0))).batch_normalized()
    surface, products = _curvatures(precise, torch.stack(vectors))
    return SliceCheck(
        cosine=cosine,
        norm_ratio=tuple(norm_ratios(objective, d) for d in directions),
        centre_is_exact=exact,
        centre_value=centre,
        symmetric=all(bool(c[0] == -c[-1]) for c in chart.coordinates),
        curvature=surface,
        curvature_hvp=products,
        norms=tuple(d.norm for d in directions),
        own_value=own if recalibrated else None,
        curvature_samples=None if part is objective else SAMPLES,
    )


def _curvatures(objective: Objective, d: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """d_i^T H d_j by second differences, and by products."""
    hd = objective.hvp(d)
    product = d @ hd.T
    # Rounding makes an error of about 4e-16 L / h^2: the step that keeps it below 1e-4 of the curvature, and no larger, since a
    # rectifier's kinks inside it add their jumps of the slope, which the surface has and its Hessian has not.
    centre = objective.value().value
    largest = float(product.diagonal().abs().max())
    h = min(max((4e-12 * abs(centre) / largest) ** 0.5, 1e-7), 1e-3) if largest > 0 else 1e-3
    surface = _second_differences(lambda a: objective.value(objective.theta + a @ d).value, len(d), h, centre)
    return surface, {key: float(product[int(key[0]) - 1, int(key[1]) - 1]) for key in surface}


def _second_differences(f: Callable[[Tensor], float], n: int, h: float, centre: float) -> dict[str, float]:
    """Second derivatives of f at 0 along its n axes, from points at a distance h."""
    unit = h * torch.eye(n, dtype=torch.float64)
    out = {f"{i}{i}": (f(e) - 2 * centre + f(-e)) / h**2 for i, e in enumerate(unit, 1)}
    if n == 2:
        a, b = unit
        out["12"] = (f(a + b) - f(a - b) - f(b - a) + f(-a - b)) / (4 * h**2)
    return out
