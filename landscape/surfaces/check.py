"""Is the plot right? The evidence that is printed and stored with every surface."""

import numpy as np
import torch

from landscape.objective import Objective
from landscape.results import SliceCheck
from landscape.surfaces.directions import Direction, norm_ratios


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
    theta, hd = objective.theta, objective.hvp(d)
    centre = objective.value().value
    product = d @ hd.T
    # Rounding makes an error of about 4e-16 L / h^2: the step that keeps it below 1e-4 of the curvature, and no larger, since a
    # rectifier's kinks inside it add their jumps of the slope, which the surface has and its Hessian has not.
    largest = float(product.diagonal().abs().max())
    h = min(max((4e-12 * abs(centre) / largest) ** 0.5, 1e-7), 1e-3) if largest > 0 else 1e-3

    def at(*steps: float) -> float:
        return objective.value(theta + sum(s * row for s, row in zip(steps, d, strict=True))).value

    surface, products = {}, {}
    for i in range(len(d)):
        unit = [h if j == i else 0.0 for j in range(len(d))]
        surface[f"{i + 1}{i + 1}"] = (at(*unit) - 2 * centre + at(*(-u for u in unit))) / h**2
        products[f"{i + 1}{i + 1}"] = float(product[i, i])
    if len(d) == 2:
        surface["12"] = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h**2)
        products["12"] = float(product[0, 1])
    return surface, products
