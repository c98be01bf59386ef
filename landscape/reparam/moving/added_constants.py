"""Constants that the function ignores: shifts of weights, and what one bias takes from another."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.symmetry.mixing.mixtures import Shift, Trade

Places = Mapping[str, Int[Tensor, "r h"]]


def shift(values: dict[str, Tensor], one: Shift, constants: Mapping[str, Float[Tensor, "r h"]]) -> None:
    """Add to the rows of a shift, in place: (r, 1) constants for a uniform one, (r, h) otherwise, by parameter."""
    for name, index in one.rows.items():
        values[name].view(-1)[index] += constants[name]


def trade(values: dict[str, Tensor], one: Trade, d: Float[Tensor, " h"]) -> None:
    """Add d to one bias and take it from another, or from the biases of all that reads it, in place."""
    for sign, places in ((1, one.plus), (-1, one.minus)):
        for name, index in places.items():
            values[name].view(-1)[index] += sign * d
    for reader in one.readers:
        weight = values[reader.weight].view(-1)[reader.weight_index]
        values[reader.bias].view(-1)[reader.bias_index] -= weight @ d


def random_constants(
    values: dict[str, Tensor], one: Shift, size: float, generator: torch.Generator
) -> dict[str, Float[Tensor, "r h"]]:
    """Normal constants for a shift, with the standard deviation `size` times the rms of the rows of each parameter."""
    return {
        name: _normal((len(index), 1 if one.uniform else index.shape[1]), generator) * size * rms(values, {name: index})
        for name, index in one.rows.items()
    }


def random_trade(values: dict[str, Tensor], one: Trade, size: float, generator: torch.Generator) -> Float[Tensor, " h"]:
    """A normal d for a trade, one number for all of it in a uniform one, of `size` times the rms of the biases."""
    h = next(iter((*one.plus.values(), *one.minus.values()))).shape[1]
    return _normal((1 if one.uniform else h,), generator).expand(h) * size * rms(values, {**one.plus, **one.minus})


def rms(values: dict[str, Tensor], places: Places) -> float:
    """The rms of these elements; where all are 0, that of all weights in tensors of two axes or more, or 1 without any."""
    own = torch.cat([values[name].view(-1)[index].reshape(-1) for name, index in places.items()])
    if not bool(own.any()):
        rest = [v.reshape(-1) for v in values.values() if v.ndim > 1 and v.is_floating_point()]
        own = torch.cat(rest) if rest else own
    return float(own.square().mean().sqrt()) or 1.0


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers in float64, on the CPU."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()
