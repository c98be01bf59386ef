"""Positive factors: one for each neuron, and what running statistics take up."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.errors import UsageError
from landscape.symmetry.symmetries import Symmetries


def scale(values: dict[str, Tensor], symmetries: Symmetries, scales: Float[Tensor, " n"]) -> None:
    """Multiply every tensor by the factors that follow from the neurons' scales, in place.

    Raises:
        UsageError: a running variance would become negative.
    """
    for name, scaling in symmetries.scalings.items():
        factor = scaling.factor(scales)
        if bool((factor == 1).all()):
            continue
        value = values[name]
        moved = value * factor if scaling.eps is None else _variance(name, value, factor, scaling.eps)
        values[name] = moved.contiguous()


def floor(values: dict[str, Tensor], symmetries: Symmetries) -> Float[Tensor, " n"]:
    """The smallest scale of every neuron that running variances allow, (neurons + 1,) float64; 0 without a limit.

    A BatchNorm absorbs a factor s with var' = s^2 (var + eps) - eps >= 0, so that s >= sqrt(eps / (var + eps)).
    """
    smallest = torch.zeros(symmetries.neurons + 1, dtype=torch.float64)
    for name, scaling in symmetries.scalings.items():
        if scaling.eps is not None:
            bound = (scaling.eps / (values[name] + scaling.eps)).sqrt()
            smallest.scatter_reduce_(0, scaling.num.expand(scaling.shape), bound, "amax")
    smallest[0] = 0.0
    return smallest


def powers(alpha: float, count: int, generator: torch.Generator) -> Float[Tensor, " k"]:
    """`count` factors, log-uniform between 1/alpha and alpha; each is a power of alpha that depends on the generator only."""
    # The sign of log alpha is kept, so that each neuron's factor is continuous in alpha and inverts with it.
    uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    return torch.exp((2 * uniform - 1) * math.log(alpha))


def taken_up(symmetries: Symmetries) -> Int[Tensor, " k"]:
    """The neurons whose scale running statistics take up."""
    found = [unit.neurons for unit in symmetries.units if unit.buffers]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def normed(symmetries: Symmetries) -> Int[Tensor, " k"]:
    """The neurons that are channels of a normalization's gain."""
    found = [unit.neurons for unit in symmetries.units if unit.normed]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def _variance(name: str, value: Tensor, factor: Tensor, eps: float) -> Tensor:
    """The running variance v' with v' + eps = factor^2 (v + eps); it must not be negative."""
    new = factor.square() * (value + eps) - eps
    if bool((new < -1e-9 * eps).any()):
        smallest = float((eps / (value.min() + eps)).sqrt())
        raise UsageError(
            f"expected a factor of at least {smallest:.3g} for {name}, found {float(factor.min()):.3g}, "
            "which would make this variance negative",
            fix="choose a larger factor or another layer",
        )
    return new.clamp_min(0.0)
