"""Which output a loss compares with which class index, found from its derivatives."""

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.network.losses.sample_losses import LossFunction, derivatives_of

Found = tuple[int, int, frozenset[int], frozenset[int]]  # axis, shift, counted and ignored classes in one part of the data


@dataclass(frozen=True)
class Pairing:
    """Alignment of outputs and class indices in a loss.

    Attributes:
        axis: dimension of the outputs that holds the classes.
        shift: number of positions by which targets are ahead of outputs, as in a language model that shifts its labels.
        ignored: class indices that do not count.
    """

    axis: int
    shift: int
    ignored: tuple[int, ...]

    def aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs with the classes on axis 1, and aligned targets; targets that do not count are -1."""
        output = output.movedim(self.axis, 1)
        if self.shift:
            output, target = output[:, :, : -self.shift], target[:, self.shift :]
        lost = (target < 0) | (target >= output.shape[1])
        for index in self.ignored:
            lost = lost | (target == index)
        return output, target.masked_fill(lost, -1)


def pairing_of(loss: LossFunction, output: Tensor, target: Tensor) -> Found | None:
    """Find the alignment: raising the output of a sample's own class lowers the loss most.

    Returns:
        Axis, shift, and the class indices that count and that do not; None if there is no such alignment.
    """
    if target.is_floating_point() or target.dtype == torch.bool or output.ndim != target.ndim + 1 or len(output) < 2:
        return None
    moved = output.roll(1, 0)  # outputs of other samples, since at correct outputs the slope is almost zero
    _, slope, *_ = derivatives_of(loss, moved, target)
    if not slope.numel():
        return None
    slope = slope.reshape(output.shape)
    for axis in dict.fromkeys((1, output.ndim - 1)):
        bend = slope.movedim(axis, 1)
        for shift in (0, 1) if target.ndim > 1 else (0,):
            here, wanted = (bend, target) if not shift else (bend[:, :, :-shift], target[:, shift:])
            if here.shape[2:] != wanted.shape[1:]:
                continue
            size = here.abs().amax(1)
            counts = size > 1e-3 * size.amax()
            outside = slope.abs().sum() - here.abs().sum()
            if bool((here.argmin(1) == wanted)[counts].all()) and float(outside) <= 1e-6 * float(here.abs().sum()):
                return axis, shift, frozenset(wanted[size > 0].tolist()), frozenset(wanted[size == 0].tolist())
    return None


def agreed(pairings: list[Found | None]) -> Pairing | None:
    """The alignment that all parts share; None if two differ or none was found."""
    known = [f for f in pairings if f is not None]
    if not known or any(f[:2] != known[0][:2] for f in known):
        return None
    counted = set().union(*(f[2] for f in known))
    ignored = set().union(*(f[3] for f in known)) - counted
    return Pairing(known[0][0], known[0][1], tuple(sorted(ignored)))
