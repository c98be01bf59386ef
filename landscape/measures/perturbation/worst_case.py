"""The largest growth of the loss in a ball or box around the weights: what SAM, ASAM and adaptive sharpness share."""

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

# Good enough for a start: the climb does the rest.
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
    """Maximise L(theta + s * y) - L(theta) over ||y|| <= rho, y measured in units of the scale s.

    In a box by search among its corners (`landscape.linalg.maximisation.corners`), in a ball by jumps from extreme point to
    extreme point out of every start; then by quasi-Newton steps from the best of what was found.

    Everything happens in y: where s follows a rescaling of the weights, so does every step, and the value does not change.

    Args:
        objective: the network on its data.
        rho: radius.
        norm: of y, "l2" or "linf".
        scale: (P,) s; a weight with scale 0 stays.
        generator: of the Lanczos start and of random starts.
        published: APGD from every start too, as Andriushchenko et al. have it.
        curved: also start from the top eigenvector of diag(s) H diag(s); if not, a box is climbed from the given starts alone.
        eigen_tol: relative residual of that eigenvector; default as fine as where it is measured, whose run it then shares.
            ROUGH will do where nothing else needs it.
        restarts: random starts.
        steps: iterations of each method.
        tol: of the jumps, as for `linalg.maximise_box`; the quasi-Newton steps do the rest.

    Returns:
        Maximum of the growth of the loss.

    Raises:
        UsageError: rho is not positive and finite.
    """
    check_radius(rho)
    theta = objective.theta
    centre, slope = objective.value_and_gradient()
    plain = bool((scale == 1).all())  # then the eigenvector is that of H itself, and its run shared with all that need it
    directions = extremes(objective, generator, None if plain else scale, tol=eigen_tol).vectors[:1] if curved else None

    def value_and_gradient(y: Tensor) -> tuple[float, Tensor]:
        if not bool(y.any()):
            return 0.0, scale * slope
        value, gradient = objective.value_and_gradient(theta + scale * y)
        return value - centre, scale * gradient

    # Batch after batch, the search of a box would take several times as long as all the rest.
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
    """Refuse a radius that is none."""
    if not (math.isfinite(rho) and rho > 0):
        raise UsageError(f"expected a positive rho, found {rho:g}", fix="for example rho=0.05")


def largest_growth(
    objective: Objective, rho: float, norm: Norm, scale: Tensor, generator: torch.Generator | None, **options: Any
) -> Estimate:
    """The maximum that `growth` finds as a lower bound, with its error over samples.

    To first order the maximum moves with the data as the value at the maximiser does (Danskin), so that its sampling error
    is that of the mean of the samples' own growths there.
    """
    found = growth(objective, rho, norm, scale, default_generator(generator), **options)
    estimate = found.estimate(loss_rounding(objective))
    before, after = objective.losses(), objective.losses(objective.theta + scale * found.point)
    if before is None or after is None:
        return estimate
    return replace(estimate, data_stderr=objective.standard_error(after - before))


def growth_work(key: str, gradients: Callable[[Mapping[str, Any]], float], forwards: float = 2, rough: bool = False) -> Work:
    """What `growth` typically takes: its own maximisation by its settings, and the eigenvector that it starts from."""

    def work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
        own: dict[Hashable, Spent] = {object(): Spent(gradients=gradients(settings), forwards=forwards)}
        return {**extremes_work(key, rough=rough)(objective, settings), **own} if key else own

    return work


def climbs(settings: Mapping[str, Any]) -> float:
    """Gradients in a ball: some jumps from every start, and one climb of so many steps."""
    return 20 + settings["steps"]


def searches(settings: Mapping[str, Any]) -> float:
    """Gradients in a box: a dozen starts of some jumps, and one climb."""
    return 50 + settings["steps"] / 2
