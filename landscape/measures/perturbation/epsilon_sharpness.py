"""Keskar's epsilon-sharpness: the largest relative growth of the loss in a small box around the minimum."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.measures.perturbation.box_growth import METHODS, Coordinates, box_work, largest_growth_in_box
from landscape.measures.registry import measure, variant
from landscape.objective import Objective
from landscape.results import Estimate

_REFERENCE = "Keskar et al. 2017, arXiv:1609.04836, metric 2.1"
_work = box_work("plain")


@measure("keskar", unit="% of 1 + loss", invariant_to=(), reference=_REFERENCE, work=_work)
def keskar(
    objective: Objective,
    *,
    eps: float = 1e-3,
    subspace: int | None = None,
    iterations: int = 10,
    tol: float = 1e-3,
    method: str = "corners",
    generator: torch.Generator | None = None,
) -> Estimate:
    """Keskar et al.'s epsilon-sharpness: how much the loss can grow inside a small box, in per cent of 1 + loss.

    phi(eps, A) = 100 (max over y in C_eps of L(theta + A y) - L(theta)) / (1 + L(theta)), with the box C_eps =
    {y : |y_i| <= eps (|(A^+ theta)_i| + 1)}. In full space A is the identity. In a subspace A is P x p with independent
    standard normal entries (the paper gives no law; this one is ours, and its columns have norm about sqrt(P)). The "+ 1"
    makes the box nearly absolute for small weights, which is why rescaling defeats the measure.

    Args:
        objective: the network on its data; the paper uses the whole training set.
        eps: relative half-width of the box; 1e-3 and 5e-4 in the paper.
        subspace: p, the number of random directions; None for the full space. The paper uses 100.
        iterations: at most so many jumps of each climb; of L-BFGS-B, 10 in the paper; of the quasi-Newton steps at the end.
        tol: a climb stops where no corner promises to raise the loss by more than this share of its growth so far, and a search
            counts no smaller gain; 0 goes on to a corner that is best for its own gradient.
        method: "corners": from the centre to the corner that the gradient points to, and on from corner to corner; again from
            random corners, from mirror images and from the corners that are best for a model of the curvature made of the
            gradients seen, until eight climbs in a row (16 up to 1000 coordinates) have brought nothing; then quasi-Newton
            steps from the best. "climb": the first of these climbs alone. "lbfgsb": so many iterations of scipy's L-BFGS-B from
            the centre and nothing else, as published. "all": "corners", L-BFGS-B, projected gradient and quasi-Newton steps,
            and climbs from the top Hessian eigenvector.
        generator: of A and of the random starts; default seed 0.

    Returns:
        Kind "lower bound": the best value over all points seen; n is the number of evaluations.

    Raises:
        UsageError: eps is not positive and finite, an unknown method, or a subspace of no or of more than P dimensions.

    Cost: "corners" 25 to 130 gradients, 50 as a rule, and 10 to 40 forward passes; up to 30 vectors of memory, beside them 60
        bytes a weight. "climb" 3 to 10 gradients and 2 forward passes. "lbfgsb" 11 to 20 gradients, and often as long again for
        its own work on the CPU. "all" twice "corners" and an eigenvector. In a subspace A takes p * P numbers of memory. The
        estimate's reason says what was spent.

    Accuracy: a non-convex maximisation; the true sharpness is at least the value. On thirty networks of 280 to 2,500 weights
        (perceptrons, convolutions, attention; fitted and not; both dtypes) "corners" is within 1 % of an independent search
        from 15 starts with scipy and shaken corners, and of "all" (`tests/measures/test_box_search.py`); "climb" is up to 34 %
        below it where the training loss is small, since such losses have several maxima far apart. In float32 a growth near
        1e-7 is rounding, which the reason says. A loss that overflows inside the box is reported as inf.

    Reference: Keskar, Mudigere, Nocedal, Smelyanskiy, Tang 2017, arXiv:1609.04836, metric 2.1. Deviations: the method, but for
    "lbfgsb"; and where the paper reports the end of L-BFGS-B, we report the best point seen.

    Example:
        L = w^2 at w = 0 with eps = 0.1: the box is |y| <= 0.1 (0 + 1), the maximum 0.01, so phi = 100 * 0.01 / 1.
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)), dtype="float64")
        >>> round(keskar(objective, eps=0.1).value, 6)
        1.0
    """
    return _sharpness(objective, eps, subspace, default_generator(generator), 1, iterations=iterations, tol=tol, method=method)


@measure(
    "keskar_relative",
    unit="% of 1 + loss",
    invariant_to=("layer", "node"),
    reference=_REFERENCE,
    work=box_work("adaptive"),
    default=False,
)
def keskar_relative(
    objective: Objective,
    *,
    eps: float = 1e-3,
    iterations: int = 10,
    tol: float = 1e-3,
    method: str = "corners",
    generator: torch.Generator | None = None,
) -> Estimate:
    """Keskar's epsilon-sharpness without the "+ 1": the box is |y_i| <= eps |theta_i|, which rescales with the weights.

    100 (max over |y_i| <= eps |theta_i| of L(theta + y) - L(theta)) / (1 + L(theta)); see `keskar`. A weight of zero stays.
    The maximisation runs in units of |theta|, so that a rescaling moves no step of it.

    Args:
        objective: the network on its data.
        eps: relative half-width of the box.
        iterations, tol, method: as for `keskar`.
        generator: of the random starts; default seed 0.

    Returns:
        Kind "lower bound", as `keskar`.

    Cost: as `keskar`.

    Reference: Keskar et al. 2017, arXiv:1609.04836, metric 2.1 without its "+ 1", which is our change.
    """
    _check(eps, method)
    where = Coordinates(objective, scale=objective.theta.abs())
    radius = torch.full_like(objective.theta, eps)
    return largest_growth_in_box(where, radius, default_generator(generator), iterations=iterations, tol=tol, method=method)


def _in_subspace(
    objective: Objective,
    *,
    eps: float = 1e-3,
    p: int = 100,
    iterations: int = 10,
    tol: float = 1e-3,
    method: str = "corners",
    plus: int = 1,
    generator: torch.Generator | None = None,
) -> Estimate:
    """The measure in a random subspace of p dimensions (P, if there are fewer weights); `plus` as in `_sharpness`.

    The columns of A have norm about sqrt(P) and the box is in y, so that a corner lies much farther away than in full space.
    """
    size = min(p, objective.dim)
    return _sharpness(objective, eps, size, default_generator(generator), plus, iterations=iterations, tol=tol, method=method)


def _register() -> None:
    """The members of the family that have no function of their own."""
    rows: tuple[tuple[str, Callable[..., Estimate], dict[str, Any], dict[str, Any], str], ...] = (
        ("keskar_subspace", _in_subspace, {"plus": 1}, {},
         "`keskar` in a random subspace of p = 100 dimensions (P, if there are fewer weights); not comparable "
         "with full space."),
        ("keskar_5e-4", keskar, {"subspace": None}, {"eps": 5e-4},
         "`keskar` in the full space with the paper's smaller box, eps = 5e-4."),
        ("keskar_subspace_5e-4", _in_subspace, {"plus": 1}, {"eps": 5e-4},
         "`keskar_subspace` in a random subspace of p = 100 dimensions with the paper's smaller box, eps = 5e-4."),
        ("keskar_subspace_relative", _in_subspace, {"plus": 0}, {},
         '`keskar` without the "+ 1" in a random subspace of p = 100 dimensions: the subspace does not rescale '
         "with the weights."),
    )  # fmt: skip
    for name, function, fixed, defaults, doc in rows:
        register = measure(
            name, unit="% of 1 + loss", invariant_to=(), reference=_REFERENCE, work=_work, default=name == "keskar_subspace"
        )
        register(variant(function, doc, fixed, **defaults))


def _sharpness(
    objective: Objective,
    eps: float,
    subspace: int | None,
    random: torch.Generator,
    plus: int,
    *,
    iterations: int,
    tol: float,
    method: str,
) -> Estimate:
    """The measure in full space or in a subspace, the box being eps (|A^+ theta| + plus)."""
    _check(eps, method)
    where = Coordinates(objective, basis=None if subspace is None else _random_basis(objective, subspace, random))
    radius = eps * (where.inverse(objective.theta[None])[0].abs() + plus)
    return largest_growth_in_box(where, radius, random, iterations=iterations, tol=tol, method=method)


def _check(eps: float, method: str) -> None:
    if not (math.isfinite(eps) and eps > 0):
        raise UsageError(f"expected a positive epsilon, found {eps:g}", fix="the paper uses 1e-3 and 5e-4")
    if method not in METHODS:
        raise UsageError(f"expected a method out of {', '.join(METHODS)}, found {method!r}", fix="corners is the default")


def _random_basis(objective: Objective, p: int, generator: torch.Generator) -> Tensor:
    """The transpose of A, (p, P), drawn row by row on the CPU so that it does not depend on the device."""
    if not 1 <= p <= objective.dim:
        raise UsageError(f"expected a subspace of 1 to {objective.dim} dimensions, found {p}", fix="the paper uses 100")

    basis = torch.empty(p, objective.dim, dtype=objective.dtype, device=objective.device)
    for row in basis:
        row.copy_(torch.randn(objective.dim, generator=generator))
    return basis


_register()
