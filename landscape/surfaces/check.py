"""Is the plot right? The evidence that is printed and stored with every surface."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.results import SliceCheck
from landscape.results.slice_check import AGREE, disagreement
from landscape.surfaces.chart import Chart
from landscape.surfaces.directions import Direction, norm_ratios

# Steps of the difference of slopes, in parts of ||theta|| / ||d||: rounding is still small, and a kink inside is rare.
_SLOPE_STEPS = (1e-10, 1e-11)
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
        The check. Its curvatures d_i^T H d_j come twice, from the surface around its centre and from Hessian-vector products.
        Of the grid, the centre is compared to the bit, and two or three places off its diagonals are computed anew.

    Cost: one product a direction, and 2 (line) or 8 (plane) evaluations, in float64 whatever the objective's own dtype, on
        at most 1,024 samples; with kinks 2 or 4 gradients more. One evaluation for each place of the grid.

    Accuracy: a rectifier's kink within the step of a second difference adds the jump of its slope, which the Hessian does
        not have. Where second differences of values disagree with the products, differences of the slopes d_i^T grad L over a
        step of 10^-10 are taken instead, which hardly ever meets a kink; `from_slopes` says so. A network with a kink in its
        very weights (a unit at exactly 0 that moves) has no Hessian there, and does not pass.
    """
    vectors = [d.vector.double() for d in directions]
    cosine = None
    if len(vectors) == 2:
        cosine = float(vectors[0] @ vectors[1] / (vectors[0].norm() * vectors[1].norm()))
    zero = tuple(np.flatnonzero(c == 0.0) for c in chart.coordinates)
    own = objective.value().value
    theta, buffers = chart.at(chart.centre)
    # Only re-estimated statistics may differ from the checkpoint's own; interpolated ones are the same here.
    centre = own if buffers is None or not recalibrated else objective.evaluate(theta, buffers).loss.value
    exact = None if any(len(z) == 0 for z in zero) else bool(loss[tuple(int(z[0]) for z in zero)] == centre)
    part = objective if objective.samples <= SAMPLES else objective.subset(SAMPLES)
    precise = part.to("float64")
    if recalibrated:
        precise = next(precise.minibatches(precise.samples, torch.Generator().manual_seed(0))).batch_normalized()
    surface, products, from_slopes = _curvatures(precise, torch.stack(vectors))
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
        recomputed=_recomputed(objective, directions, chart, loss),
        from_slopes=from_slopes,
    )


def _recomputed(objective: Objective, directions: tuple[Direction, ...], chart: Chart, loss: np.ndarray) -> float | None:
    """Largest difference between values on the grid and new ones, relative to the largest of them; None without any.

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
    if not found:
        return None
    # Losses below 10^-3 have absolute rounding errors: float32 resolves a probability near 1 to 10^-7.
    return float(np.abs(np.subtract(found, again)).max() / max(1e-3, np.abs(again).max()))


def _curvatures(objective: Objective, d: Tensor) -> tuple[dict[str, float], dict[str, float], bool]:
    """d_i^T H d_j from the surface, from products, and whether the former are from its slopes."""
    hd = objective.hvp(d)
    product = d @ hd.T
    # Rounding makes an error of about 4e-16 L / h^2: the step that keeps it below 1e-4 of the curvature, and no larger, for
    # fewer kinks.
    centre = objective.value().value
    largest = float(product.diagonal().abs().max())
    h = min(max((4e-12 * abs(centre) / largest) ** 0.5, 1e-7), 1e-3) if largest > 0 else 1e-3
    surface = _second_differences(lambda a: objective.value(objective.theta + a @ d).value, len(d), h, centre)
    products = {key: float(product[int(key[0]) - 1, int(key[1]) - 1]) for key in surface}
    for step in _SLOPE_STEPS:
        if disagreement(surface, products, centre) <= AGREE:
            return surface, products, step != _SLOPE_STEPS[0]
        surface = _differences_of_slopes(objective, d, step)
    return surface, products, True


def _differences_of_slopes(objective: Objective, d: Tensor, step: float) -> dict[str, float]:
    """Second derivatives at 0 from gradients on both sides; of the two mixed ones the mean."""
    theta = objective.theta
    rows = []
    for v in d:
        h = step * float(theta.norm() / v.norm())
        rows.append((objective.gradient(theta + h * v) - objective.gradient(theta - h * v)) @ d.T / (2 * h))
    both = torch.stack(rows)
    both = (both + both.T) / 2
    return {f"{i + 1}{j + 1}": float(both[i, j]) for i, j in ((0, 0), (1, 1), (0, 1)) if j < len(d)}


def _second_differences(f: Callable[[Tensor], float], n: int, h: float, centre: float) -> dict[str, float]:
    """Second derivatives of f at 0 along its n axes, from points at a distance h."""
    unit = h * torch.eye(n, dtype=torch.float64)
    out = {f"{i}{i}": (f(e) - 2 * centre + f(-e)) / h**2 for i, e in enumerate(unit, 1)}
    if n == 2:
        a, b = unit
        out["12"] = (f(a + b) - f(a - b) - f(b - a) + f(-a - b)) / (4 * h**2)
    return out
