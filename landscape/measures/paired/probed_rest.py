"""Trace of H by probes of all samples, of what the heaviest pairs leave: where the samples are few."""

import numpy as np
import torch
from torch import Tensor

from landscape import linalg
from landscape.linalg.importance import PILOT, Redrawn, Terms
from landscape.measures.paired.pair_plan import DEFAULT, PAIR, PRODUCT, with_data_error
from landscape.measures.paired.shared_pairs import Shared
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.running.shared_computations import operator
from landscape.results import Estimate
from landscape.spectra import krylov

# Work of the known pairs in products of H, the share of all weight from which on more are not worth it, and their bytes.
_PRODUCTS, _SHARE, _ROOM = 0.8, 0.97, 1 << 26


def probed(
    shared: Shared, terms: Terms, place: int, units: Coordinates, generator: torch.Generator, relative_error: float
) -> Estimate:
    """tr B^T H B = tr K + tr(B^T H B - K), with K the part of the heaviest pairs in B^T G B; the second from probes.

    The pairs are gradients of single samples, much cheaper than a product of H, and they hold what H has of outliers at a
    trained minimum: Hutchinson's variance falls to that of what they leave. K is fixed before the probes are drawn, so that the estimate is
    unbiased and its interval is `landscape.linalg.trace_within`'s. Where a sample has so many pairs that none weighs much, K is
    nothing. The sampling error is that of the pairs: those of the pilot, of which the draws serve here.

    Cost: `_PRODUCTS` products' worth of pairs, a product for each probe, a further one for each Lanczos step where these pay.
    """
    objective, single = shared.objective, not isinstance(terms, Redrawn)
    room = krylov(objective, 1, shard_basis=False)
    known = None
    if single:
        most = int(min(_PRODUCTS * PRODUCT * objective.samples / PAIR, _ROOM // (units.dim * objective.theta.element_size())))
        most = min(most, room["basis_size"] // 4, int(np.searchsorted(np.cumsum(terms.weights), _SHARE * terms.rest(0))) + 1)
        known = _known(shared, terms.order[:most], units) if most > 0 else None
    kept = 0 if known is None else len(known.rows)
    within = linalg.trace_within(
        operator(objective, units),
        units.dim,
        relative_error=relative_error or DEFAULT,
        block=objective.plan.block,
        known=known,
        basis_size=max(1, room["basis_size"] - kept),
        place=room["place"],
        generator=generator,
        dtype=objective.dtype,
        device=objective.device,
    )
    heavy, draws = (min(PILOT, len(terms)), 2 * PILOT) if single else (0, 2 * PILOT)
    part = float(terms.estimate(heavy, draws).value[place])
    return with_data_error(shared, terms, place, (heavy, draws, 0), within.value - part, _named(within, kept))


def _named(within: Estimate, kept: int) -> Estimate:
    """With the reason that says what was done."""
    from dataclasses import replace

    beside = f"beside {kept} pairs exactly, " if kept else ""
    return replace(within, reason=f"probes: {beside}{within.reason or 'a Krylov space'}")


def _known(shared: Shared, chosen: np.ndarray, units: Coordinates) -> linalg.Known:
    """The gradients of these pairs, in these units."""
    objective, pairs = shared.objective, shared.pairs
    ordered = np.sort(chosen)
    rows = torch.empty(len(ordered), units.dim, dtype=objective.dtype, device=objective.device)

    def find(_: np.ndarray) -> np.ndarray:
        for at, found in pairs.rows(ordered):
            rows[torch.from_numpy(at).to(rows.device)] = units.gather(found)
        return np.zeros((1, 1))

    objective.shared_out(find, np.zeros(1, dtype=np.int64), gradients=len(ordered) / objective.samples)
    signs: Tensor = torch.from_numpy(pairs.signs[ordered]).to(rows)
    return linalg.Known(rows, signs)
