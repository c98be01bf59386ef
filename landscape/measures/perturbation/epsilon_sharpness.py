"""Keskar's epsilon-sharpness: the largest relative growth of the loss in a small box around the minimum."""

import math
from collections.abc import Callable
from typing import Any

import torch

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.linalg.vector_store import Place, Rows
from landscape.measures.perturbation.box_growth import METHODS, Coordinates, box_work, largest_growth_in_box
from landscape.measures.registry import ELEMENTWISE, measure, variant
from landscape.measures.running.time_forecast import vectors_at_work
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
    standard normal entries, so that its columns have norm about sqrt(P); the paper does not specify the distribution. The
    "+ 1" gives small weights a box of nearly fixed size, so the measure is not invariant to rescaling.

    Args:
        objective: the network on its data; the paper uses the whole training set.
        eps: relative half-width of the box; 1e-3 and 5e-4 in the paper.
        subspace: p, the number of random directions; None for the full space. The paper uses 100.
        iterations: maximal number of jumps of each climb, of iterations of L-BFGS-B (10 in the paper), and of the final
            quasi-Newton steps.
        tol: a climb stops if no corner is predicted to raise the loss by more than this fraction of its growth so far; smaller
            gains do not count. With 0 it continues to a corner that is best for its own gradient.
        method: "corners": climbs that jump to the corner that the gradient points to, and on from corner to corner. They start
            at the centre, at random corners, at mirror images, and at the best corners of a quadratic model fitted to the
            gradients, until eight climbs in a row (16 for up to 1000 coordinates) bring no gain; quasi-Newton steps from the
            best point follow. "climb": only the first climb. "lbfgsb": only `iterations` of scipy's L-BFGS-B from the centre,
            as published. "all": "corners", L-BFGS-B, projected gradient and quasi-Newton steps, and climbs from the top
            Hessian eigenvector.
        generator: generator of A and of the random starts; default seed 0.

    Returns:
        Kind "lower bound": the best value over all evaluated points; n is the number of evaluations.

    Raises:
        UsageError: eps is not positive and finite, an unknown method, or a subspace of 0 or more than P dimensions.

    Cost: "corners": 25 to 130 gradients, typically 60, and 10 to 40 forward passes; in a subspace 95 to 185 gradients; up to 30
        vectors of memory, and another 60 bytes per weight. "climb": 3 to 10 gradients and 2 forward passes. "lbfgsb": 11 to 20
        gradients, and often as much time again for L-BFGS-B itself on the CPU. "all": twice "corners" and an eigenvector. In a
        subspace A takes p * P numbers, in memory if there is room, else on disk. The estimate's reason gives the cost.

    Accuracy: a non-convex maximisation; the true sharpness is at least the value. On thirty networks of 280 to 2,500 weights
        (perceptrons, convolutions, attention; fitted and not; both dtypes) "corners" is within 1 % of "all" and of an
        independent search from 15 starts with scipy and perturbed corners (`tests/measures/test_box_search.py`). "climb" is up
        to 34 % lower for small training losses, which have several distant maxima. In float32 a growth near 1e-7 is rounding;
        the reason then says so. A loss that overflows inside the box is reported as inf.

    Reference: Keskar, Mudigere, Nocedal, Smelyanskiy, Tang 2017, arXiv:1609.04836, metric 2.1. Deviations: the method, except
    for "lbfgsb"; the value is that of the best evaluated point, while the paper takes the end point of L-BFGS-B.

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
    invariant_to=ELEMENTWISE,
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

    100 (max over |y_i| <= eps |theta_i| of L(theta + y) - L(theta)) / (1 + L(theta)); see `keskar`. Weights that are zero do
    not change. The maximisation runs in units of |theta|, so that a rescaling does not change its steps.

    Args:
        objective: the network on its data.
        eps: relative half-width of the box.
        iterations, tol, method: as for `keskar`.
        generator: generator of the random starts; default seed 0.

    Returns:
        Kind "lower bound", as for `keskar`.

    Cost: as for `keskar`.

    Reference: Keskar et al. 2017, arXiv:1609.04836, metric 2.1. Deviation: without the "+ 1".
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

    The columns of A have norm about sqrt(P) and the box is in y, so its corners are much farther away than in full space.
    """
    size = min(p, objective.dim)
    return _sharpness(objective, eps, size, default_generator(generator), plus, iterations=iterations, tol=tol, method=method)


def _register() -> None:
    """Register the variants of `keskar`."""
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
    """The measure in full space or in a subspace, with the box eps (|A^+ theta| + plus)."""
    _check(eps, method)
    where = Coordinates(objective, basis=None if subspace is None else _random_basis(objective, subspace, random))
    radius = eps * (where.inverse(objective.theta[None])[0].abs() + plus)
    return largest_growth_in_box(where, radius, random, iterations=iterations, tol=tol, method=method)


def _check(eps: float, method: str) -> None:
    if not (math.isfinite(eps) and eps > 0):
        raise UsageError(f"expected a positive epsilon, found {eps:g}", fix="the paper uses 1e-3 and 5e-4")
    if method not in METHODS:
        raise UsageError(f"expected one of the methods {', '.join(METHODS)}, found {method!r}", fix="corners is the default")


def _random_basis(objective: Objective, p: int, generator: torch.Generator) -> Rows:
    """The transpose of A, (p, P), drawn row by row on the CPU so that it does not depend on the device.

    It is in memory if it fits the budget, else in host memory or on disk.
    """
    if not 1 <= p <= objective.dim:
        raise UsageError(f"expected a subspace of 1 to {objective.dim} dimensions, found {p}", fix="the paper uses 100")

    place = Place(objective.plan.directions(p, vectors_at_work(objective)).where)
    basis = Rows(p, objective.dim, objective.dtype, objective.device, place)
    for i in range(p):
        basis[i] = torch.randn(objective.dim, generator=generator).to(objective.dtype)
    return basis


_register()
