"""Random crops and flips of a batch on its device."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Draws:
    """Crop position and flip of every image of an epoch, drawn on the CPU so that they are the same on every device."""

    top: Int[Tensor, " N"]
    left: Int[Tensor, " N"]
    flip: Bool[Tensor, " N"]

    @classmethod
    def make(cls, count: int, pad: int, flip: bool, generator: torch.Generator, device: torch.device) -> "Draws":
        """Draw for `count` images; without flips if `flip` is False."""
        top, left = (torch.randint(2 * pad + 1, (count,), generator=generator) for _ in range(2))
        mirrored = (torch.rand(count, generator=generator) < 0.5) & flip
        return cls(top.to(device), left.to(device), mirrored.to(device))


def crop_and_flip(x: Float[Tensor, "B C H W"], draws: Draws, rows: slice | Tensor, pad: int) -> Float[Tensor, "B C H W"]:
    """Each image shifted by up to `pad` pixels, padded with zeros, and flipped according to its draw.

    Zero is the mean pixel of normalized images, as in He et al. 2015 (arXiv:1512.03385, section 4.2).

    Args:
        x: the batch.
        draws: draws of the epoch, one per image of the training set.
        rows: the batch's images in the training set.
        pad: largest shift, in pixels.
    """
    height, width = x.shape[-2:]
    down = torch.arange(height, device=x.device) + draws.top[rows, None]
    across = torch.arange(width, device=x.device)
    across = torch.where(draws.flip[rows, None], width - 1 - across, across) + draws.left[rows, None]
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[batch, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
