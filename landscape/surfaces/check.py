"""Is the plot right? The evidence that is printed and stored with every surface."""

import numpy as np
import torch

from landscape.objective import Objective
from landscape.results import SliceCheck
from landscape.surfaces.directions import Direction, norm_ratios

# Second differences in float64: far above rounding (1e-16 / h^2), far below the distance to most kinks of a rectifier.
_STEP = 3e-5


def check_slice(
    objective: Objective, directions: tuple[Direction, ...], axes: tuple[np.ndarray, ...], loss: np.ndarray
) -> SliceCheck:
    """Compare a finished slice with what its axes, norms and centre should be.

    Args:
        objective: what was sliced.
        directions: the axes.
        axes: coordinates of the grid.
        loss: values on it.

    Returns:
        The check; its curvatures d_i^T H d_j come twice, from second differences of the surface and from Hessian-vector
        products.

    Cost: one product a direction, and 2 (line) or 8 (plane) evaluations, in float64 whatever the objective's own dtype.
    """
    vectors = [d.vector.double() for d in directions]
    cosine = None
    if len(vectors) == 2:
        cosine = float(vectors[0] @ vectors[1] / (vectors[0].norm() * vectors[1].norm()))
    zero = tuple(np.flatnonzero(c == 0.0) for c in axes)
    centre = objective.value().value
    exact = None if any(len(z) == 0 for z in zero) else bool(loss[tuple(int(z[0]) for z in zero)] == centre)
    surface, products = _curvatures(objective.to("float64"), torch.stack(vectors))
    return SliceCheck(
        cosine=cosine,
        norm_ratio=tuple(norm_ratios(objective, d) for d in directions),
        centre_is_exact=exact,
        centre_value=centre,
        symmetric=all(bool(c[0] == -c[-1]) for c in axes),
        curvature=surface,
        curvature_hvp=products,
    )


def _curvatures(objective: Objective, d: torch.Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """d_i^T H d_j by second differences, and by products."""
    theta, h = objective.theta, _STEP
    hd = objective.hvp(d)
    centre = objective.value().value

    def at(*steps: float) -> float:
        return objective.value(theta + sum(s * row for s, row in zip(steps, d, strict=True))).value

    surface, products = {}, {}
    for i in range(len(d)):
        unit = [h if j == i else 0.0 for j in range(len(d))]
        surface[f"{i + 1}{i + 1}"] = (at(*unit) - 2 * centre + at(*(-u for u in unit))) / h**2
        products[f"{i + 1}{i + 1}"] = float(d[i] @ hd[i])
    if len(d) == 2:
        surface["12"] = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h**2)
        products["12"] = float(d[0] @ hd[1])
    return surface, products
