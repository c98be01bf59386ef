"""A quick recipe, and how the weights of two runs are compared."""

from pathlib import Path

import torch
from torch import Tensor

from landscape import checkpoints
from landscape.tasks import Recipe

SMALL = Recipe(network_options={"widths": [16]}, batch_size=128, epochs=5, lr=0.1, momentum=0.5, dropout=0.2)


def state(path: Path) -> dict[str, Tensor]:
    """The weights that a checkpoint holds."""
    return checkpoints.read(path).weights().state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two networks have the same weights, to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
