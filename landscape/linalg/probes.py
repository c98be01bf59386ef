"""Random vectors that depend on the seed only, and not on the device, the dtype or the block size."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError

Distribution = Literal["rademacher", "gaussian"]


def default_generator(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a new one with seed 0; the global generator is never used."""
    if generator is None:
        return torch.Generator().manual_seed(0)
    if generator.device.type != "cpu":
        raise UsageError(
            f"expected a generator on the CPU, found one on {generator.device}",
            fix="pass torch.Generator().manual_seed(seed); the numbers are moved to the device afterwards",
        )
    return generator


def random_rows(
    count: int,
    dim: int,
    distribution: Distribution,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Float[Tensor, "count dim"]:
    """`count` independent rows with mean 0 and covariance I.

    Each row is drawn separately, on the CPU and in one dtype, so that every split into blocks and every device gets the same
    numbers.
    """
    if distribution not in get_args(Distribution):
        raise UsageError(
            f"expected distribution 'rademacher' or 'gaussian', found {distribution!r}", fix="choose one of the two"
        )
    block = torch.empty(count, dim, dtype=dtype, device=device)
    for row in block:
        if distribution == "rademacher":
            row.copy_(torch.randint(0, 2, (dim,), generator=generator, dtype=torch.int8).mul_(2).sub_(1))
        else:
            row.copy_(torch.randn(dim, generator=generator, dtype=torch.float32))
    return block
