"""Mixup: a batch mixed with itself in another order."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from scipy.special import betaincinv
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mix:
    """How a batch is mixed: lambda x + (1 - lambda) x[partners], and the losses of y and of y[partners] likewise.

    Attributes:
        share: lambda, between 0 and 1.
        partners: (B,) a permutation of the batch.

    Reference: Zhang, Cisse, Dauphin, Lopez-Paz 2018, arXiv:1710.09412. As in their code there is one lambda for a batch, and
    partners are from the same batch.
    """

    share: float
    partners: Int[Tensor, " B"]

    @classmethod
    def make(cls, sizes: Sequence[int], alpha: float, generator: torch.Generator, device: torch.device) -> "list[Mix]":
        """Draw for the batches of an epoch, of these sizes: lambda ~ Beta(alpha, alpha), and partners uniformly.

        Everything is drawn on the CPU, so that it is the same on every device.
        """
        # PyTorch has no Beta distribution that takes a generator; the inverse distribution function makes one of uniform draws.
        uniform = torch.rand(len(sizes), generator=generator, dtype=torch.float64)
        shares = betaincinv(alpha, alpha, uniform.numpy())
        orders = [torch.randperm(size, generator=generator).to(device) for size in sizes]
        return [cls(float(share), order) for share, order in zip(shares, orders, strict=True)]

    def blend(self, x: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "B ..."]:
        """The mixed inputs."""
        return self.share * x + (1 - self.share) * x[self.partners]
