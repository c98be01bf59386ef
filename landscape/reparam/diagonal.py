"""Whether one network is another with its weights multiplied by positive factors, and by which."""

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.errors import MismatchError
from landscape.objective import Objective


@dataclass(frozen=True)
class Diagonal:
    """A change theta' = D theta of the weights with a positive diagonal matrix D.

    Attributes:
        factors: changed parameter -> (smallest, largest) factor.
        uniform: whether each parameter has a single factor.
    """

    factors: dict[str, tuple[float, float]]
    uniform: bool


def diagonal_of(before: Objective, after: Objective, dtype: torch.dtype) -> Diagonal | None:
    """The factors of a rescaling of layers or neurons; None for any other change.

    A rescaling of neurons multiplies a weight by s[o] / s[i]: the logarithms of the factors are a sum over the axes. A matrix
    with positive entries near the identity keeps all signs too, but not this.

    Args:
        before, after: the two networks.
        dtype: of the weights, for the tolerance of their rounding.

    Raises:
        MismatchError: the networks have different parameters.
    """
    if [(e.name, e.shape) for e in before.layout] != [(e.name, e.shape) for e in after.layout]:
        raise MismatchError(
            "expected two networks with the same parameters, found different ones", fix="rescale the network that you measured"
        )
    factors, uniform = {}, True
    tolerance = 100 * torch.finfo(dtype).eps
    for entry in before.layout:
        old, new = (o.theta[entry.start : entry.stop].double().cpu() for o in (before, after))
        there = old != 0  # zeros stay zero under every factor
        if bool(new[~there].any()):
            return None
        ratio = new / old
        own = ratio[there]
        if not len(own) or bool(((own - 1).abs() <= tolerance).all()):
            continue
        if not bool((own > 0).all()) or not _additive(ratio.log().reshape(entry.shape), tolerance):
            return None
        low, high = float(own.min()), float(own.max())
        factors[entry.name] = (low, high)
        uniform = uniform and high - low <= tolerance * max(abs(high), abs(low))
    return Diagonal(factors, uniform)


def _additive(logs: Tensor, tolerance: float) -> bool:
    """Whether logs[o, i, ...] is a sum f(o) + g(i, ...); nan where it is not known."""
    if logs.ndim < 2:
        return True
    table = logs.flatten(1)
    reference = table[int((~table.isnan()).sum(1).argmax())]
    rest = table - reference
    return not bool(((rest - rest.nanmedian(1, keepdim=True).values).abs() > 3 * tolerance).any())
