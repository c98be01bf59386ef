"""Trace of H by probes of all samples, of what the heaviest pairs leave: where the samples are few."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from landscape import linalg
from landscape.linalg.importance import Redrawn, Terms
from landscape.measures.paired.pair_plan import DEFAULT, expected_products
from landscape.measures.paired.shared_pairs import Shared
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.running.shared_computations import data_probes, operator, with_data_error
from landscape.objective import Objective, in_runs
from landscape.results import Estimate
from landscape.spectra import krylov
from landscape.spectra.known_pairs import ROOM, how_many, known_part

# Samples of a run with a probe of its own: with fewer, calls cost more than work. Blocks of vectors that are held: probes,
# images, what is made of them.
_RUN, _BLOCKS = 16, 4


def probed(shared: Shared, terms: Terms, units: Coordinates, generator: torch.Generator, relative_error: float) -> Estimate:
    """tr B^T H B = tr K + tr(B^T H B - K), with K the part of the heaviest pairs in B^T G B; the second from probes.

    The pairs are gradients of single samples, much cheaper than a product of H, and they hold what H has of outliers at a
    trained minimum: Hutchinson's variance falls to that of what they leave. K is fixed before the probes are drawn, so that the
    estimate is unbiased and its interval is that of `landscape.linalg.trace_within`. Where a sample has so many pairs that none
    weighs much, K is nothing, and every run of samples has a probe of its own. The sampling error is that of v^T H_n v with a
    few random v: what a sample adds to tr(H - G) is not small here, and of either sign.

    Cost: 0.8 products' worth of pairs, a product for each probe, a further one for each Lanczos step where these pay, and 36
    or 80 forward passes for the sampling error.
    """
    single = not isinstance(terms, Redrawn)
    goal = relative_error or DEFAULT
    objective = shared.objective.without_trial(expected_products(goal))
    room = krylov(objective, 1, shard_basis=False)
    known, runs, dim, matvec = None, 1, units.dim, operator(objective, units)
    if single:
        most = how_many(objective, terms.weights, units.dim, room["basis_size"])
        known = known_part(objective, shared.pairs, terms.order[:most], units.gather, units.dim) if most else None
    else:
        size = _run(objective)
        runs, matvec = _in_runs(objective, units, size) if size < objective.samples else (1, matvec)
        dim *= runs
    kept = 0 if known is None else len(known.rows)
    within = linalg.trace_within(
        matvec,
        dim,
        relative_error=goal,
        block=objective.plan.block,
        known=known,
        basis_size=max(1, (room["basis_size"] - kept) // runs),
        place=room["place"],
        generator=generator,
        dtype=objective.dtype,
        device=objective.device,
    )
    ways = ([f"beside {kept} pairs exactly"] if kept else []) + ([f"in {runs} runs of samples"] if runs > 1 else [])
    named = replace(within, reason=f"probes: {', '.join([*ways, within.reason or 'a Krylov space'])}")
    return with_data_error(objective, named, data_probes(objective, generator, units))


def _run(objective: Objective) -> int:
    """Samples of a run, such that the vectors of all runs fit."""
    room = ROOM // (_BLOCKS * objective.plan.block * objective.plan.row)
    return max(_RUN, -(-objective.samples // max(1, room)))


def _in_runs(objective: Objective, units: Coordinates, size: int) -> tuple[int, Callable[[Tensor], Tensor]]:
    """The number of runs, and the product with the block diagonal matrix of their parts of B^T H B."""
    runs, product = in_runs(objective, size)

    def matvec(c: Tensor) -> Tensor:
        own = c.reshape(len(c) * runs, units.dim)
        return units.gather(product(units.spread(own).view(len(c), runs, -1)).flatten(0, 1)).reshape(len(c), -1)

    return runs, matvec
