"""Random crops and flips of a batch that is already on the device."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Draws:
    """Where every image of an epoch is cut and whether it is mirrored, drawn on the CPU so that every device sees the same."""

    top: Int[Tensor, " N"]
    left: Int[Tensor, " N"]
    flip: Bool[Tensor, " N"]

    @classmethod
    def make(cls, count: int, pad: int, flip: bool, generator: torch.Generator, device: torch.device) -> "Draws":
        """Draw for `count` images; `flip` False mirrors none."""
        top, left = (torch.randint(2 * pad + 1, (count,), generator=generator) for _ in range(2))
        mirrored = (torch.rand(count, generator=generator) < 0.5) & flip
        return cls(top.to(device), left.to(device), mirrored.to(device))


def crop_and_flip(x: Float[Tensor, "B C H W"], draws: Draws, rows: slice | Tensor, pad: int) -> Float[Tensor, "B C H W"]:
    """Each image shifted by up to `pad` pixels, zeros moving in, and mirrored where its draw says so.

    Zeros are the mean pixel of normalized images, as in He et al. 2015 (arXiv:1512.03385, section 4.2).

    Args:
        x: the batch.
        draws: of the epoch, one an image of the training set; `rows` are those of this batch.
        pad: largest shift, in pixels.
    """
    height, width = x.shape[-2:]
    down = torch.arange(height, device=x.device) + draws.top[rows, None]
    across = torch.arange(width, device=x.device)
    across = torch.where(draws.flip[rows, None], width - 1 - across, across) + draws.left[rows, None]
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[batch, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
