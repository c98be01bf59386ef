"""Constants that the function ignores: shifts of weights, and what one bias, or a row of weights, takes from another."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.symmetry.mixing.mixtures import BatchNormMean, Centring, Constant, Shift, Trade

Places = Mapping[str, Int[Tensor, "r h"]]


def add(values: dict[str, Tensor], one: Constant, state: Float[Tensor, " n"], size: float) -> None:
    """Add constants in place: the state times `size` times the rms of what it is added to.

    The state has `count` numbers, one after another for every parameter of a shift, else a single vector.
    """
    if isinstance(one, Shift):
        parts = state.split([math.prod(shape) for shape in _shapes(one)])
        for (name, index), shape, part in zip(one.rows.items(), _shapes(one), parts, strict=True):
            values[name].view(-1)[index] += part.view(shape) * size * rms(values, {name: index})
    elif isinstance(one, Trade):
        places = {**one.plus, **one.minus}
        trade(values, one, state.expand(next(iter(places.values())).shape[1]) * size * rms(values, places))
    elif isinstance(one, Centring):
        _centre(values, one, state * size)
    else:
        move_mean(values, one, state * size * rms(values, {one.mean: torch.arange(one.channels)[None]}))


def count(one: Constant) -> int:
    """How many numbers can be chosen freely."""
    return sum(math.prod(shape) for shape in _shapes(one))


def random_state(one: Constant, generator: torch.Generator) -> Float[Tensor, " n"]:
    """Standard normal numbers, (count,), float64."""
    drawn = [torch.randn(s, generator=generator, device=generator.device, dtype=torch.float64) for s in _shapes(one)]
    return torch.cat([part.reshape(-1) for part in drawn]).cpu()


def trade(values: dict[str, Tensor], one: Trade, d: Float[Tensor, " h"]) -> None:
    """Add d to one bias and take it from another, or from the biases of all that reads it, in place."""
    for sign, places in ((1, one.plus), (-1, one.minus)):
        for name, index in places.items():
            values[name].view(-1)[index] += sign * d
    for reader in one.readers:
        weight = values[reader.weight].view(-1)[reader.weight_index]
        values[reader.bias].view(-1)[reader.bias_index] -= weight @ d


def centre(values: dict[str, Tensor], one: Centring, v: Float[Tensor, " o"]) -> None:
    """Add v / gain to the rows that read a LayerNorm, and take from their bias what the LayerNorm's shift adds, in place."""
    inverse = 1 / values[one.gain].view(-1)[one.gain_index] if one.gain is not None else torch.ones(one.index.shape[1]).double()
    values[one.weight].view(-1)[one.index] += v[:, None] * inverse
    if one.shift is not None:
        assert one.bias is not None  # a Centring with a shift has a bias that takes it away
        values[one.bias].view(-1)[one.bias_index] -= (
            v * one.factor * (values[one.shift].view(-1)[one.shift_index] * inverse).sum()
        )


def move_mean(values: dict[str, Tensor], one: BatchNormMean, d: Float[Tensor, " c"]) -> None:
    """Add d to a running mean, and to the shift what that takes from the outputs, in place."""
    values[one.mean] += d.view_as(values[one.mean])
    slope = values[one.gain] / (values[one.var] + one.eps).sqrt()
    values[one.shift] += slope * d.view_as(values[one.shift])


def rms(values: dict[str, Tensor], places: Places) -> float:
    """The rms of these elements; where all are 0, that of all weights in tensors of two axes or more, or 1 without any."""
    own = torch.cat([values[name].view(-1)[index].reshape(-1) for name, index in places.items()])
    if not bool(own.any()):
        rest = [v.reshape(-1) for v in values.values() if v.ndim > 1 and v.is_floating_point()]
        own = torch.cat(rest) if rest else own
    return float(own.square().mean().sqrt()) or 1.0


def _centre(values: dict[str, Tensor], one: Centring, state: Float[Tensor, " o"]) -> None:
    """Constants of the size of the state times the rms of the weights; none where a gain is 0, which nothing divides by."""
    spread = 1.0
    if one.gain is not None:
        gain = values[one.gain].view(-1)[one.gain_index]
        if not bool(gain.all()):
            return
        spread = float((1 / gain).square().mean().sqrt())
    centre(values, one, state * rms(values, {one.weight: one.index}) / spread)


def _shapes(one: Constant) -> list[tuple[int, int]]:
    """Shapes of the constants of each parameter of a shift; of the one vector of all others."""
    if isinstance(one, Shift):
        return [(len(index), 1 if one.uniform else index.shape[1]) for index in one.rows.values()]
    if isinstance(one, Trade):
        return [(1, 1 if one.uniform else next(iter((*one.plus.values(), *one.minus.values()))).shape[1])]
    if isinstance(one, Centring):
        return [(1, len(one.index))]
    return [(1, one.channels)]
