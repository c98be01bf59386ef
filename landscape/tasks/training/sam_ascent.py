"""The step of sharpness-aware minimization (SAM) along the gradient, from which it takes the gradient that it descends by."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the one class of all BatchNorm layers


@contextmanager
def ascended(model: nn.Module, rho: float) -> Iterator[None]:
    """Inside, the weights are w + rho g / ||g||; afterwards they are w again, to the bit.

    g is the gradient that the weights hold when this is entered, and ||g|| its Euclidean norm over all weights. With g = 0, or
    so small that rho / ||g|| overflows, the weights stay. Inside, BatchNorm normalizes by the batch and leaves its running
    statistics as they are, so that those are of w only.

    Reference: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv:2010.01412, equation 2 with p = 2.
    """
    moved = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    with torch.no_grad():
        before = [p.clone() for p, _ in moved]
        size = torch.nn.utils.get_total_norm([gradient for _, gradient in moved])
        scale = rho / size
        if scale.isfinite():  # else the gradient is zero, or its norm too small for a step of this length
            for p, gradient in moved:
                p.add_(gradient * scale)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        with torch.no_grad():
            for (p, _), old in zip(moved, before, strict=True):
                p.copy_(old)
