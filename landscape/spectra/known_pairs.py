"""The part of the Hessian that the gradients of a few (sample, class) pairs make up: known in full, it needs no probe."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.linalg import Known
from landscape.objective import Objective, Pairs

# Bytes of the vectors of a known part.
ROOM = 1 << 26
# Forward passes of a sample that one pair, and a product of H, take.
PAIR, PRODUCT = 3.5, 6.0
# Work of the known pairs in products of H, and the share of all weight from which on more are not worth it.
_PRODUCTS, _SHARE = 0.8, 0.97
# Share of all weight below which pairs do not weigh much: probes would leave almost the same variance without them.
_LITTLE = 0.1


def how_many(objective: Objective, weights: np.ndarray, dim: int, basis: int) -> int:
    """How many of the heaviest pairs are worth knowing; `weights` in descending order, `basis` vectors fit in memory."""
    most = min(_PRODUCTS * PRODUCT * objective.samples / PAIR, ROOM // (dim * objective.theta.element_size()), basis // 4)
    total = float(weights.sum())
    return min(int(most), int(np.searchsorted(np.cumsum(weights), _SHARE * total)) + 1, len(weights)) if total > 0 else 0


def known_part(objective: Objective, pairs: Pairs, chosen: np.ndarray, gather: Callable[[Tensor], Tensor], dim: int) -> Known:
    """sum over these pairs of B^T g g^T B, with the pair's sign; `gather` is g -> B^T g, of `dim` coordinates.

    Cost: a gradient of a single sample for each pair.
    """
    ordered = np.sort(chosen)

    def work(indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), dim))
        for at, found in pairs.rows(indices):
            out[at] = gather(found).double().cpu().numpy()
        return out

    found = objective.shared_out(work, ordered, gradients=len(ordered) / objective.samples)
    rows = torch.from_numpy(found).to(device=objective.device, dtype=objective.dtype)
    return Known(rows, torch.from_numpy(pairs.signs[ordered]).to(rows))


def heaviest(objective: Objective) -> Known | None:
    """The part of the heaviest pairs, in the weights themselves; None where there are no pairs, or those that it could
    have weigh less than a tenth of all.

    Cost: a forward pass, and at most 0.8 products' worth of gradients.
    """
    pairs = objective.pairs()
    if isinstance(pairs, str) or not np.isfinite(pairs.weights).all():
        return None
    order = np.argsort(-pairs.weights, kind="stable")
    count = how_many(objective, pairs.weights[order], objective.dim, objective.plan.basis(1).size)
    if not pairs.weights[order[:count]].sum() > _LITTLE * pairs.weights.sum():
        return None
    return known_part(objective, pairs, order[:count], lambda rows: rows, objective.dim)
