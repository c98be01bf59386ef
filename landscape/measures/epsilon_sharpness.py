"""Keskar's epsilon-sharpness: the largest relative growth of the loss in a small box around the minimum."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.products import gram
from landscape.measures.registry import measure, variant
from landscape.measures.shared import extremes, seeded
from landscape.measures.worst_case import climbs, growth, growth_work
from landscape.objective import Objective
from landscape.results import Estimate

_REFERENCE = "Keskar et al. 2017, arXiv:1609.04836, metric 2.1"
# Typical passes of one maximisation, and the eigenvector that it starts from.
_work, _relative = growth_work("plain", climbs, 20), growth_work("adaptive", climbs, 20)


@measure("keskar", unit="% of 1 + loss", invariant_to=(), reference=_REFERENCE, work=_work)
def keskar(
    objective: Objective,
    *,
    eps: float = 1e-3,
    subspace: int | None = None,
    iterations: int = 10,
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
        iterations: of L-BFGS-B, 10 in the paper, and as many of the two projected methods.
        generator: of A and of the random starts; default seed 0.

    Returns:
        Kind "lower bound": the best value over L-BFGS-B as published and three maximisers of our own (corners by the sign of
        the gradient, projected gradient, projected quasi-Newton), started from the centre and from the top Hessian
        eigenvector; n is the number of evaluations.

    Raises:
        UsageError: eps is not positive and finite, or a subspace of no or of more than P dimensions.

    Cost: some 60 to 120 gradients. In a subspace A takes p * P numbers of memory.

    Accuracy: a non-convex maximisation; the true sharpness is at least the value. A loss that overflows inside the box is
        reported as inf.

    Reference: Keskar, Mudigere, Nocedal, Smelyanskiy, Tang 2017, arXiv:1609.04836, metric 2.1. Where the paper reports the
    end of L-BFGS-B, we report the best point seen by any method.

    Example:
        L = w^2 at w = 0 with eps = 0.1: the box is |y| <= 0.1 (0 + 1), the maximum 0.01, so phi = 100 * 0.01 / 1.
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)), dtype="float64")
        >>> round(keskar(objective, eps=0.1).value, 6)
        1.0
    """
    return _sharpness(objective, eps, subspace, iterations, seeded(generator), absolute=True)


@measure(
    "keskar_relative", unit="% of 1 + loss", invariant_to=("layer", "node"), reference=_REFERENCE, work=_relative, default=False
)
def keskar_relative(
    objective: Objective, *, eps: float = 1e-3, iterations: int = 10, generator: torch.Generator | None = None
) -> Estimate:
    """Keskar's epsilon-sharpness without the "+ 1": the box is |y_i| <= eps |theta_i|, which rescales with the weights.

    100 (max over |y_i| <= eps |theta_i| of L(theta + y) - L(theta)) / (1 + L(theta)); see `keskar`. A weight of zero stays.
    The maximisation runs in units of |theta|, so that a rescaling moves no step of it.

    Args:
        objective: the network on its data.
        eps: relative half-width of the box.
        iterations: of every method.
        generator: of the random starts; default seed 0.

    Returns:
        Kind "lower bound", as `keskar`.

    Cost: some 60 to 120 gradients.

    Reference: Keskar et al. 2017, arXiv:1609.04836, metric 2.1 without its "+ 1", which is our change.
    """
    _check(eps)
    scale = objective.theta.abs()
    best = growth(objective, eps, "linf", scale, seeded(generator), steps=iterations)
    return _per_cent(objective, best, objective.theta + scale * best.point, objective.value().value, best.value)


@measure("keskar_subspace", unit="% of 1 + loss", invariant_to=(), reference=_REFERENCE, work=_work)
def keskar_subspace(
    objective: Objective,
    *,
    eps: float = 1e-3,
    p: int = 100,
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> Estimate:
    """`keskar` in a random subspace of p = 100 dimensions (P, if there are fewer weights); not comparable with full space.

    The columns of A have norm about sqrt(P) and the box is in y, so that a corner lies much farther away than in full space.
    """
    return keskar(objective, eps=eps, subspace=min(p, objective.dim), iterations=iterations, generator=generator)


def _half(name: str, function: Callable[..., Estimate], where: str, fixed: dict[str, object] | None = None) -> None:
    """The same with the paper's smaller box."""
    doc = f"`{function.__name__}` {where} with the paper's smaller box, eps = 5e-4."
    half = variant(function, doc, fixed, eps=5e-4)
    measure(name, unit="% of 1 + loss", invariant_to=(), reference=_REFERENCE, work=_work, default=False)(half)


_half("keskar_5e-4", keskar, "in the full space", {"subspace": None})
_half("keskar_subspace_5e-4", keskar_subspace, "in a random subspace of p = 100 dimensions")


@measure("keskar_subspace_relative", unit="% of 1 + loss", invariant_to=(), reference=_REFERENCE, work=_work, default=False)
def keskar_subspace_relative(
    objective: Objective,
    *,
    eps: float = 1e-3,
    p: int = 100,
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> Estimate:
    """`keskar` without the "+ 1" in a random subspace of p = 100 dimensions: the subspace does not rescale with the weights."""
    return _sharpness(objective, eps, min(p, objective.dim), iterations, seeded(generator), absolute=False)


def _sharpness(
    objective: Objective,
    eps: float,
    subspace: int | None,
    iterations: int,
    random: torch.Generator,
    *,
    absolute: bool,
) -> Estimate:
    """The measure in full space or in a subspace, with the "+ 1" (absolute) or without."""
    _check(eps)
    top = extremes(objective, random).vectors[0]
    theta = objective.theta
    if subspace is None:
        basis, coordinates, curved = None, theta, top
    else:
        basis = _random_basis(objective, subspace, random)
        # A^+ theta by least squares on the p x p Gram matrix in float64: A is tall and well conditioned.
        sides = gram(basis, torch.cat((basis, torch.stack((theta, top)))))
        solved = torch.from_numpy(np.linalg.solve(sides[:, :subspace], sides[:, subspace:])).to(theta)
        coordinates, curved = solved[:, 0].contiguous(), solved[:, 1].contiguous()
    radius = eps * (coordinates.abs() + absolute)

    def at(y: Tensor) -> Tensor:
        return theta + (y if basis is None else y @ basis)

    def value_and_gradient(y: Tensor) -> tuple[float, Tensor]:
        value, gradient = objective.value_and_gradient(at(y))
        return value, gradient if basis is None else basis @ gradient

    best = linalg.maximise_box(
        value_and_gradient,
        lambda y: objective.value(at(y)).value,
        radius,
        directions=curved,
        restarts=2,
        iterations=iterations,
        lbfgsb_iterations=iterations,
        generator=random,
    )
    return _per_cent(objective, best, at(best.point), best.centre, best.value - best.centre)


def _per_cent(objective: Objective, best: linalg.Maximum, point: Tensor, centre: float, grown: float) -> Estimate:
    """The growth of the loss in per cent of 1 + loss, with its sampling error at the maximiser (Danskin, delta method)."""
    estimate = replace(best.estimate(), value=100 * grown / (1 + centre))
    before, after = objective.losses(), objective.losses(point)
    if before is None or after is None:
        return estimate
    influence = (after - before) - grown / (1 + centre) * (before - centre)
    error = objective.standard_error(influence)
    return replace(estimate, data_stderr=None if error is None else 100 * error / (1 + centre))


def _check(eps: float) -> None:
    if not (math.isfinite(eps) and eps > 0):
        raise UsageError(f"expected a positive epsilon, found {eps:g}", fix="the paper uses 1e-3 and 5e-4")


def _random_basis(objective: Objective, p: int, generator: torch.Generator) -> Tensor:
    """The transpose of A, (p, P), drawn row by row on the CPU so that it does not depend on the device."""
    if not 1 <= p <= objective.dim:
        raise UsageError(f"expected a subspace of 1 to {objective.dim} dimensions, found {p}", fix="the paper uses 100")

    basis = torch.empty(p, objective.dim, dtype=objective.dtype, device=objective.device)
    for row in basis:
        row.copy_(torch.randn(objective.dim, generator=generator))
    return basis
