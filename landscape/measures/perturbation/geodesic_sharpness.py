"""Geodesic sharpness of da Silva, Dangel and Oore: sharpness in metrics that no matrix between a pair of maps changes."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from landscape import linalg
from landscape.linalg.probes import default_generator
from landscape.measures.perturbation.pair_metrics import Geometry, Metric, geometry
from landscape.measures.perturbation.worst_case import ROUGH, check_radius
from landscape.measures.registry import NotDefined, Work, measure, variant
from landscape.measures.running.shared_computations import (
    extremes,
    extremes_work,
    loss_rounding,
    sweep_work,
    trace_of,
)
from landscape.measures.traced_network import symmetries_for
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_of_pairs = partial(
    measure, unit="loss", invariant_to=("pair",), reference="da Silva, Dangel, Oore 2025, arXiv:2505.05409", default=False
)


def geodesic_trace(
    objective: Objective, *, metric: Metric = "inv", probes: int = 64, generator: torch.Generator | None = None
) -> Estimate:
    """Trace of the Hessian in a metric of the pairs, tr(M^-1 H).

    The average-case form of geodesic sharpness: tr(M^-1 H) = E[x^T H x] over directions x of unit variance in the metric. For a
    pair G, H of which only G H^T counts, the squared length of a change (X, Y) is
        inv: Tr((G^T G)^-1 X^T X + (H^T H)^-1 Y^T Y),    mix: Tr(H^T H X^T X + G^T G Y^T Y),
    and that of a change d of a weight in no pair d^2 / w^2, as in adaptive sharpness. A matrix A between the pair takes M to
    T^-T M T^-1 and H to T^-T H T^-1, so the trace stays. A factor for every input of G is not of that kind: neuron-wise
    rescaling, and the gain of a normalization before a pair, do move it. `row_trace` survives these as well.

    Args:
        objective: the network on its data.
        metric: "inv" or "mix".
        probes: number of random directions, at least 2.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t", unit of the loss; `data_stderr` is the sampling error. The estimate itself is invariant.

    Raises:
        NotDefined: the network has no pair or cannot be read, two pairs share a weight, some weights of a pair do not vary, or
            a factor has not full rank.

    Cost: one product per probe.

    Reference: da Silva, Dangel, Oore 2025, arXiv:2505.05409, equations 9 and 10; biases are further rows, as in example A.1.
    Deviations: no relaxation (their epsilon would break the invariance: a factor without full rank is refused); all directions
    count, also those along the orbit, along which the curvature is zero at a critical point; Hessian, not covariant Hessian.
    """
    return trace_of(objective, probes, generator, geometry(objective, metric).coordinates())


def geodesic_sharpness(
    objective: Objective,
    *,
    metric: Metric = "inv",
    rho: float = 0.5,
    steps: int = 20,
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Worst-case geodesic sharpness: the largest growth of the loss in a geodesic ball of radius rho.

    max over horizontal x of length at most rho in the metric of L(gamma_x(1)) - L(w). gamma_x is the geodesic from w along x,
    to second order: w + x - Gamma(x, x) / 2. Horizontal: orthogonal to all changes (-G W, H W^T) of a pair, which keep the
    function. Weights in no pair move along straight lines, with |w| as their unit. Metrics, what moves it and what does not: as
    for `geodesic_trace`.

    Args:
        objective: the network on its data.
        metric: "inv" or "mix".
        rho: radius.
        steps: steps of APGD from every start.
        restarts: random starts, in addition to the centre and both signs of the top eigenvector in the metric.
        generator: generator of the random starts; default seed 0.

    Returns:
        Kind "lower bound", unit of the loss: the best point of all runs; `data_stderr` is the sampling error there.

    Raises:
        UsageError: rho is not positive and finite.
        NotDefined: as for `geodesic_trace`; or a rotary embedding turns the channels of a pair.

    Cost: (3 + restarts) * (steps + 1) gradients for APGD and 20 to 80 for the other methods.

    Accuracy: a non-convex maximisation; the true value is at least this. The second-order geodesic is near the true one for rho
    well below sqrt(h) for inv, and well below the smallest singular value of G H^T for mix, whose lengths have the unit of
    G H^T: the defaults are 0.5 and 0.05.

    Reference: da Silva, Dangel, Oore 2025, arXiv:2505.05409, equations 4, 5, 9 to 12, and appendix C.1 for the other weights.
    Deviations: one maximum over all samples, not a mean over batches; no relaxation; steps are in coordinates in which the ball
    is round. The horizontal projection for inv solves M N L + L M N = B for L = Lambda^T, which follows from their condition;
    the equation printed there has a transpose elsewhere.
    """
    check_radius(rho)
    space = geometry(objective, metric)
    if space.rotary:
        raise NotDefined("expected pairs under all invertible matrices, found a rotary embedding, which allows fewer")
    return largest(objective, space, rho, steps, restarts, default_generator(generator))


def largest(
    objective: Objective, space: Geometry, rho: float, steps: int, restarts: int, generator: torch.Generator
) -> Estimate:
    """The maximum over the ball, in coordinates z in which it is round; the horizontal part of z counts."""
    centre = objective.value().value
    directions = extremes(objective, generator, space.coordinates(horizontal=True), tol=ROUGH).vectors[:1]

    def value(z: Tensor) -> float:
        return objective.value(space.point(z)).value - centre

    def value_and_gradient(z: Tensor) -> tuple[float, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            point = space.point(leaf)
            growth, slope = objective.value_and_gradient(point.detach())
            return growth - centre, torch.autograd.grad(point, leaf, slope)[0]

    options: dict[str, Any] = {"dtype": objective.dtype, "device": objective.device, "generator": generator}
    found = linalg.maximise_ball(
        value_and_gradient, value, rho, dim=objective.dim, methods=("boundary_gradient", "apgd", "polish"), iterations=steps,
        starts=("centre", "directions", "random"), directions=directions, restarts=restarts, tol=1e-3, **options,
    )  # fmt: skip
    estimate = found.estimate(loss_rounding(objective))
    before, after = objective.losses(), objective.losses(space.point(found.point))
    if before is None or after is None:
        return estimate
    return replace(estimate, data_stderr=objective.standard_error(after - before))


def _register() -> None:
    """Register both measures in both metrics."""
    for metric, rho, words in (("inv", 0.5, "(G^T G)^-1 of each factor"), ("mix", 0.05, "H^T H of the other factor")):
        doc = f"Trace of the Hessian in the pair metric {metric}, {words}; d^2 / w^2 on weights in no pair."
        _of_pairs(f"geodesic_trace_{metric}", work=_where_pairs(sweep_work(f"geodesic {metric}")))(
            variant(geodesic_trace, doc, {"metric": metric})
        )
        doc = f"Worst-case geodesic sharpness in the pair metric {metric}, {words}: max growth on geodesics of length rho."
        _of_pairs(f"geodesic_{metric}", work=_where_pairs(_climb_work(f"geodesic {metric}")))(
            variant(geodesic_sharpness, doc, {"metric": metric}, rho=rho)
        )


def _where_pairs(work: Work) -> Work:
    """The work of a measure that takes none where there is no pair."""

    def own(objective: Objective, settings: Mapping[str, Any]) -> Mapping[Hashable, Spent]:
        found = symmetries_for(objective)
        return work(objective, settings) if found is not None and "pair" in found.families else {}

    return own


def _climb_work(key: str) -> Work:
    """Typical cost of the maximisation, and of the eigenvector from which it starts."""
    start = extremes_work(key, rough=True)
    return lambda objective, settings: {
        **start(objective, settings),
        object(): Spent(gradients=(3 + settings["restarts"]) * (settings["steps"] + 1) + 35, forwards=3),
    }


_register()
