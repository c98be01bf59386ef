"""Traces from pairs: the Gauss-Newton part by importance, and of H - G what random probes of a few samples leave.

tr H = tr G + tr(H - G). The first part is a sum of squared gradients over pairs (sample, factor of the loss's curvature), whose
heaviest are found exactly and the others drawn in proportion to a weight that one forward pass gives. The second vanishes for a
network that is affine in each of its weight tensors (`landscape.symmetry.affine_tensors`); elsewhere it is small at a trained
minimum, and one product with its own random vector for a few samples that are drawn in proportion to their residuals is an
unbiased draw of it. Neither cost grows with the number of samples, beyond the forward pass.
"""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.importance import Terms
from landscape.linalg.probes import default_generator
from landscape.measures.paired.pair_plan import DEFAULT, expected_products, of_terms
from landscape.measures.paired.probed_rest import probed
from landscape.measures.paired.shared_pairs import Shared, square
from landscape.measures.registry import Work
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.running.shared_computations import (
    Weight,
    coordinates_of,
    data_probes,
    operator,
    sweep_work,
    trace_of,
    with_data_error,
)
from landscape.objective import Objective
from landscape.objective.objective import Curvature
from landscape.results import Estimate, Spent
from landscape.spectra import krylov
from landscape.symmetry.affine_tensors import breaks

# Gradients of samples that a trace to 5 % typically takes; products of samples for H - G, where it has a diagonal.
_TYPICAL, _RESTS = 100, 800


def trace_to(
    objective: Objective,
    probes: int,
    generator: torch.Generator | None,
    weight: Weight = None,
    curvature: Curvature = "hessian",
    *,
    relative_error: float = 0.0,
    exact: bool = False,
) -> Estimate:
    """Trace of A, or of B^T A B: from that many probes, or to a relative error by whatever takes least, or from all pairs.

    `relative_error` or `exact` replace `probes`. See `paired_trace`; where it has no way, the trace is found on a Krylov space
    and by probes of the rest (`landscape.linalg.trace_within`), and `reason` says "probes".

    Raises:
        UsageError: the relative error is negative.
    """
    if relative_error < 0:
        raise UsageError(f"expected a relative error of at least 0, found {relative_error:g}", fix="0.05 is five per cent")
    if not relative_error and not exact:
        return trace_of(objective, probes, generator, weight, curvature)
    random = default_generator(generator)
    found = (
        empirical_trace(objective, random, relative_error, exact)
        if curvature == "fisher"
        else paired_trace(
            objective, random, weight, relative_error=relative_error, exact=exact, gauss_newton=curvature == "ggn"
        )
    )
    if isinstance(found, Estimate):
        return found
    units = coordinates_of(objective, weight)
    rows = data_probes(objective, random, weight)
    within = linalg.trace_within(
        operator(objective, units, curvature),
        units.dim,
        relative_error=relative_error or DEFAULT,
        block=objective.plan.block,
        **krylov(objective, 1, shard_basis=False),
        generator=random,
        dtype=objective.dtype,
        device=objective.device,
    )
    said = f"probes: {within.reason or 'a Krylov space alone'}"
    named = replace(within, reason=f"not exact: {found}; {said}" if exact else said)
    return with_data_error(objective, named, rows, curvature)


def trace_work(name: str, curvature: Curvature = "hessian") -> Work:
    """Cost of `trace_to`: that of the probes; or a forward pass, and gradients and products of a few samples.

    Where H - G has a diagonal: products of the draws of it, or of all samples for the probes, whichever take less.
    """

    def work(objective: Objective, settings: Mapping[str, Any]) -> Mapping[Hashable, Spent]:
        if not settings["relative_error"] and not settings["exact"]:
            return sweep_work(name, curvature)(objective, settings)
        few = _TYPICAL / objective.samples
        rests = 0.0
        if curvature == "hessian" and objective.watched(breaks):
            rests = min(_RESTS / objective.samples, expected_products(settings["relative_error"] or DEFAULT))
        own = Spent(gradients=few, sweeps=few + rests, products=few + rests)
        return {("pairs",): Spent(forwards=1), ("paired", name, curvature): own}

    return work


def paired_trace(
    objective: Objective,
    generator: torch.Generator | None,
    weight: Weight = None,
    *,
    relative_error: float,
    exact: bool = False,
    gauss_newton: bool = False,
) -> Estimate | str:
    """Trace of B^T H B, or of B^T G B, with a 95 % interval whose half-width is `relative_error` of the value.

    A pilot of 16 of the heaviest pairs and 32 draws of the others, and where H - G counts of 16 draws of it, tells what each
    way would cost; its draws are not used again. `reason` names the way that was taken: "exact diagonal" (diag H = diag G),
    "control variate" (G by pairs, H - G by probes) or, for G itself, "pairs". All pairs are taken where that is asked for
    (`exact`) or costs hardly more.

    Args:
        objective: the network on its data.
        generator: its seed is that of all draws.
        weight: B, as for `trace_of`.
        relative_error: of the interval.
        exact: take all pairs, so that tr G has no error.
        gauss_newton: the trace of G instead of H.

    Returns:
        Estimate of kind "exact" or "t", with the sampling error from the same pass; the reason where there are no pairs.

    Cost: a forward pass, a gradient of a single sample for each pair, a product of 8 samples for each draw of H - G.
    """
    random = default_generator(generator)
    shared = Shared.of(objective, random)
    if isinstance(shared, str):
        return shared
    terms, place = shared.of_weight(weight, exact)
    units = coordinates_of(objective, weight)

    def signs(g: torch.Generator) -> Tensor:
        z = torch.randint(0, 2, (units.dim,), generator=g, dtype=torch.int8).mul_(2).sub_(1)
        return units.spread(z.to(device=objective.device, dtype=objective.dtype))

    inside = not isinstance(weight, Coordinates) or _within_tensors(objective, weight)
    plain = gauss_newton or (inside and shared.is_affine())
    rests = None if plain else shared.rests(units.mark, signs)
    name = "pairs" if gauss_newton else "exact diagonal" if plain else "control variate"
    found = of_terms(shared, terms, place, rests, name, relative_error, exact)
    return probed(shared, terms, units, random, relative_error) if isinstance(found, str) else found


def empirical_trace(objective: Objective, random: torch.Generator, relative_error: float, exact: bool) -> Estimate | str:
    """Trace of the empirical Fisher matrix: the term of a sample is the square of its gradient."""
    shared = Shared.of(objective, random)
    if isinstance(shared, str):
        return shared
    pairs = shared.pairs
    total = pairs.counted.sum()
    own = np.where(pairs.counted > 0, total / np.where(pairs.counted > 0, pairs.counted, 1.0), 0.0)

    def work(samples: np.ndarray) -> np.ndarray:
        out = np.empty((len(samples), 1))
        for at, rows in pairs.sample_rows(samples):
            out[at, 0] = square(rows).cpu().numpy() * own[samples[at]]
        return out

    def find(samples: np.ndarray) -> np.ndarray:
        return objective.shared_out(work, samples, gradients=len(samples) / objective.samples)

    terms = Terms(pairs.residuals**2 * own * pairs.sizes, find, shared.seed)
    if not len(terms):
        return Estimate(0.0, None, "exact", 0, reason="no sample has a gradient")
    return of_terms(shared, terms, 0, None, "samples", relative_error, exact)


def _within_tensors(objective: Objective, units: Coordinates) -> bool:
    """Whether every group of weights that a coordinate moves lies in one weight tensor."""
    ids = torch.empty_like(objective.theta)
    for number, entry in enumerate(objective.layout):
        ids[entry.start : entry.stop] = number
    ones = torch.ones_like(objective.theta)
    moved = units.spread(torch.ones(units.dim, dtype=objective.dtype, device=objective.device)) != 0
    # A group lies in one tensor if its sum of w^2 (number - mean)^2 vanishes: three sums tell.
    size = units.gather(ones * moved * objective.theta)
    first, second = units.gather(ids * objective.theta), units.gather(ids.square() * objective.theta)
    spread = second * size - first.square()
    return bool((spread.abs() <= 1e-4 * (second * size).abs() + 1e-30).all())
