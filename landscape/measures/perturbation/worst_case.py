"""The largest growth of the loss in a ball or box around the weights, for SAM, ASAM and adaptive sharpness."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.measures.registry import Work
from landscape.measures.running.shared_computations import extremes, extremes_work, loss_rounding
from landscape.objective import Objective
from landscape.results import Estimate, Spent

Norm = Literal["l2", "linf"]

# Relative residual of an eigenvector that only serves as a starting point.
ROUGH = 1e-2


def growth(
    objective: Objective,
    rho: float,
    norm: Norm,
    scale: Tensor,
    generator: torch.Generator,
    *,
    published: bool = False,
    curved: bool = True,
    eigen_tol: float | None = None,
    restarts: int = 2,
    steps: int = 20,
    tol: float = 1e-3,
) -> linalg.Maximum:
    """Maximise L(theta + s * y) - L(theta) over ||y|| <= rho, with y in units of the scale s.

    A box is searched from corner to corner (`landscape.linalg.maximisation.corners`), a ball by jumps between boundary points
    from every start. Quasi-Newton steps from the best point follow.

    All steps are in y: if s scales with the weights under a rescaling, neither the steps nor the value change.

    Args:
        objective: the network on its data.
        rho: radius.
        norm: norm of y, "l2" or "linf".
        scale: (P,) s; a weight with scale 0 does not change.
        generator: generator of the Lanczos start vector and of the random starts.
        published: also run APGD from every start, as in Andriushchenko et al.
        curved: also start from the top eigenvector of diag(s) H diag(s); if False, a box is climbed from the given starts only.
        eigen_tol: relative residual of that eigenvector. By default it is that of the eigenvalue measure, whose Lanczos run is
            then shared; ROUGH is sufficient if no such measure is computed.
        restarts: number of random starts.
        steps: iterations of each method.
        tol: tolerance of the jumps, as for `linalg.maximise_box`.

    Returns:
        Maximum of the growth of the loss.

    Raises:
        UsageError: rho is not positive and finite.
    """
    check_radius(rho)
    theta = objective.theta
    centre, slope = objective.value_and_gradient()
    plain = bool((scale == 1).all())  # then the eigenvector is that of H, whose Lanczos run is shared
    directions = extremes(objective, generator, None if plain else scale, tol=eigen_tol).vectors[:1] if curved else None

    def value_and_gradient(y: Tensor) -> tuple[float, Tensor]:
        if not bool(y.any()):
            return 0.0, scale * slope
        value, gradient = objective.value_and_gradient(theta + scale * y)
        return value - centre, scale * gradient

    # For every batch of m-sharpness, the full search of a box would take several times as long as everything else.
    jumps = "boundary_gradient" if norm == "l2" else "corner_search" if curved else "sign_corner"
    options: dict[str, Any] = {
        "dim": objective.dim, "starts": ("centre", "directions", "random"), "directions": directions, "restarts": restarts,
        "iterations": steps, "tol": tol if objective.dim > linalg.FEW else 0.0,
        "generator": generator, "dtype": objective.dtype, "device": objective.device,
        "methods": (jumps, *(("apgd",) if published else ()), "polish"),
    }  # fmt: skip

    def value(y: Tensor) -> float:
        return objective.value(theta + scale * y).value - centre

    maximise = linalg.maximise_ball if norm == "l2" else linalg.maximise_box
    return maximise(value_and_gradient, value, rho, **options)


def check_radius(rho: float) -> None:
    """Raise UsageError unless the radius is positive and finite."""
    if not (math.isfinite(rho) and rho > 0):
        raise UsageError(f"expected a positive rho, found {rho:g}", fix="for example rho=0.05")


def largest_growth(
    objective: Objective, rho: float, norm: Norm, scale: Tensor, generator: torch.Generator | None, **options: Any
) -> Estimate:
    """The maximum that `growth` finds, as a lower bound with its sampling error.

    To first order the maximum depends on the data like the value at the maximiser (Danskin's theorem), so its sampling error is
    that of the mean over samples of the growth there.
    """
    found = growth(objective, rho, norm, scale, default_generator(generator), **options)
    estimate = found.estimate(loss_rounding(objective))
    before, after = objective.losses(), objective.losses(objective.theta + scale * found.point)
    if before is None or after is None:
        return estimate
    return replace(estimate, data_stderr=objective.standard_error(after - before))


def growth_work(key: str, gradients: Callable[[Mapping[str, Any]], float], forwards: float = 2, rough: bool = False) -> Work:
    """Typical cost of `growth`: the maximisation, and the eigenvector from which it starts."""

    def work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
        own: dict[Hashable, Spent] = {object(): Spent(gradients=gradients(settings), forwards=forwards)}
        return {**extremes_work(key, rough=rough)(objective, settings), **own} if key else own

    return work


def climbs(settings: Mapping[str, Any]) -> float:
    """Gradients in a ball: a few jumps from every start, and one climb of `steps`."""
    return 20 + settings["steps"]


def searches(settings: Mapping[str, Any]) -> float:
    """Gradients in a box: a dozen starts with a few jumps each, and one climb."""
    return 50 + settings["steps"] / 2
