"""Products in which every run of samples has vectors of its own."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.objective.objective import Objective


def in_runs(objective: Objective, m: int) -> tuple[int, Callable[[Float[Tensor, "k B P"]], Float[Tensor, "k B P"]]]:
    """B runs of m samples (of fewer, the last), and the product of the part of H of each with vectors of its own.

    A run in which no target counts has no part of H, and is left out of the B.

    tr H is the trace of this block diagonal matrix, too, but a probe of it has a random vector of its own for every run: its
    variance is the sum of 2 ||H_b||_F^2, H_b the parts of H, which is up to B times smaller than 2 ||H||_F^2.

    Cost: that of products of H; the graphs are not kept from call to call.
    """
    parts = objective.chunks(m)
    sizes = [float(p.sample_weights.sum()) for p in parts]
    total = sum(sizes)

    def product(v: Tensor) -> Tensor:
        found = [p.hvp(v[:, b]) * (s / total) for b, (p, s) in enumerate(zip(parts, sizes, strict=True))]
        objective.share_of_passes(len(parts), len(v))
        return torch.stack(found, 1)

    return len(parts), product
