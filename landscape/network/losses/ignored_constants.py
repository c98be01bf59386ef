"""Whether a loss ignores a constant that is added to all outputs of a sample, as every softmax does."""

import torch
from torch import Tensor

from landscape.network.losses.sample_losses import LossFunction

_SAME = 1e-9  # relative, in float64
_SIZES = (1.0, 100.0)  # of the constants, in units of the largest output


def ignores_constants(loss: LossFunction, outputs: Tensor, target: Tensor) -> bool:
    """Whether loss(outputs + c, target) = loss(outputs, target), with c constant along the axis of the classes.

    The loss itself is asked, at these outputs, with constants of two sizes that differ from sample to sample, and from place
    to place in outputs with further axes. The axis of the classes is the second, as in PyTorch's losses, or the last, as in
    (B, T, C) outputs of a language model; either counts.

    Args:
        loss: (output, target) -> scalar, in float64 if its own tensors are.
        outputs: (B, C) or with further axes.
        target: as the loss takes it.

    Returns:
        True if the value stays to a relative 1e-9 for both constants. False also for outputs without classes, (B,) or (B, 1),
        where a constant is the whole output.

    Cost: at most five values of the loss.

    Example:
        >>> outputs, target = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), torch.tensor([1, 0])
        >>> ignores_constants(torch.nn.CrossEntropyLoss(), outputs, target)
        True
        >>> ignores_constants(torch.nn.MSELoss(), outputs, -outputs)
        False
    """
    outputs = outputs.detach().double()
    target = target.double() if target.is_floating_point() else target
    before = loss(outputs, target)
    return any(
        all(_same(before, loss(outputs + size * _constants(outputs, axis), target)) for size in _SIZES)
        for axis in sorted({1, outputs.ndim - 1})
        if outputs.ndim > 1 and outputs.shape[axis] > 1
    )


def _constants(outputs: Tensor, axis: int) -> Tensor:
    """One number for all outputs along the axis, no two alike and none small, in units of the largest output."""
    shape = [1 if i == axis else n for i, n in enumerate(outputs.shape)]
    count = torch.Size(shape).numel()
    steps = torch.arange(1, count + 1, dtype=outputs.dtype, device=outputs.device) / count
    return ((0.5 + steps) * outputs.abs().max().clamp(min=1e-3)).reshape(shape)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs() <= _SAME * torch.maximum(a.abs(), b.abs()))
