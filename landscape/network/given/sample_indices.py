"""Indices of samples that are drawn from the data, as a subset or as the mini-batches of an epoch."""

import torch
from torch import Tensor

from landscape.errors import UsageError


def drawn(n: int, samples: int, generator: torch.Generator | None) -> Tensor:
    """Ascending indices of n samples: drawn without replacement, or the first n without a generator.

    Raises:
        UsageError: n is not between 1 and the number of samples.
    """
    if not 1 <= n <= samples:
        raise UsageError(f"expected between 1 and {samples} samples, found {n}", fix=f"pass at most {samples}")
    return torch.arange(n) if generator is None else torch.randperm(samples, generator=generator)[:n].sort().values


def epoch(samples: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """Ascending indices of the samples in each mini-batch of a random order; up to `size - 1` samples are left out."""
    order = torch.randperm(samples, generator=generator)
    return [rows.sort().values for rows in order.split(size) if len(rows) == min(size, samples)]
