"""Rescale a network along its scaling symmetries: the weights change, the function does not."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.network.copying import uncompiled
from landscape.network.graph import Example, example_for
from landscape.reparam.moving.same_function import compare
from landscape.reparam.moving.scaled import floor, powers, scale
from landscape.reparam.moving.wide_weights import rounded, wide
from landscape.symmetry.finding import find_symmetries
from landscape.symmetry.symmetries import Symmetries, Unit

Layers = Sequence[str] | Mapping[str, "float | Tensor"]


def rescale(
    model: nn.Module,
    alpha: float = 5.0,
    *,
    node: bool = False,
    layers: Layers | None = None,
    example: Example | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A network with rescaled weights and the same function.

    Layer-wise it is T_alpha of Dinh et al.: the weights of a layer are multiplied by alpha, and the weights that read its
    outputs are divided by alpha. With D the diagonal matrix of all factors, theta' = D theta, the gradient becomes D^-1 g and
    the Hessian D^-1 H D^-1. With BatchNorm, gamma and beta multiply a layer. The weights before a BatchNorm can also be scaled
    alone: the running statistics, including (var + eps), absorb the factor exactly.

    Args:
        model: a network in which `find_symmetries` finds a symmetry; it is copied, not changed.
        alpha: the factor, > 0, of every unit for which `layers` has none.
        node: use a separate factor for each neuron or channel, log-uniform in [1/alpha, alpha].
        layers: names of the layers to rescale, or name -> factor (or one factor per neuron). Default: with `node` all units;
            else the first unit that multiplies the weights of one layer and divides those of another.
        example: an input, (B, ...), for tracing the network; not needed if the network begins with a Linear layer.
        generator: generator for `node`; default: one with seed 0.

    Returns:
        A copy, in the mode, dtype and on the device of the model. New weights are computed in float64 and rounded once. For
        powers of two, and without running statistics, the outputs are the same to the bit.

    Raises:
        UsageError: no symmetry, an unknown layer, a factor that is not positive or that would make a running variance negative.
        NumericalError: a weight overflows its dtype, or the outputs on the example changed by more than rounding.

    Cost: one symbolic trace, one copy, two forward passes on two samples of the example in float64.

    Reference: Dinh et al. 2017, arXiv:1703.04933, definition 5 and section 3.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> other = rescale(net, alpha=4.0)
        >>> float((other[0].weight / net[0].weight).detach()), float((other[2].weight / net[2].weight).detach())
        (4.0, 0.25)
    """
    example = example_for(model, example)
    symmetries = find_symmetries(model, example).require()
    scales = scales_for(model, symmetries, alpha, node=node, layers=layers, generator=generator)
    return apply(model, symmetries, scales, example=example)


def scales_for(
    model: nn.Module,
    symmetries: Symmetries,
    alpha: float = 5.0,
    *,
    node: bool = False,
    layers: Layers | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " n"]:
    """The scale of every neuron that `rescale` uses, for the same arguments.

    Returns:
        Scales, (neurons + 1,), float64, for `apply` and `factors`.
    """
    named = _requested(symmetries, _positive(alpha, "alpha"), node=node, layers=layers)
    if not node:
        return symmetries.layerwise(named)
    drawn: dict[str, float | Tensor] = {}
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    least = smallest_scales(model, symmetries)
    for name, bound in named.items():
        if isinstance(bound, Tensor) and bound.ndim:
            raise UsageError(f"expected one bound for {name} with node=True, found {len(bound)} factors", fix="drop node")
        neurons = symmetries[name].neurons
        # A BatchNorm with a variance below eps cannot absorb small factors: the draw is cut at the smallest possible one.
        bound = _positive(float(bound), f"the bound of {name}")
        drawn[name] = powers(bound, len(neurons), generator).maximum(least[neurons])
    return symmetries.layerwise(drawn)


def factors(model: nn.Module, symmetries: Symmetries, scales: Float[Tensor, " n"]) -> dict[str, Float[Tensor, "..."]]:
    """The diagonal D of theta' = D theta: parameter -> factors in its shape, float64, on the CPU."""
    named = {}
    for name, p in uncompiled(model).named_parameters():
        scaling = symmetries.scalings.get(name)
        factor = torch.ones((), dtype=torch.float64) if scaling is None else scaling.factor(scales)
        named[name] = factor.expand(p.shape).clone()
    return named


def apply(
    model: nn.Module, symmetries: Symmetries, scales: Float[Tensor, " n"], *, example: Example | None = None
) -> nn.Module:
    """A copy of the network with its weights and running statistics rescaled by `scales`.

    Args:
        model: the network in which `symmetries` were found, or one with the same names.
        symmetries: from `find_symmetries`.
        scales: (neurons + 1,) float64, from `scales_for` or `Symmetries.layerwise`.
        example: if given, the outputs on it are compared before and after.

    Raises:
        UsageError: a running variance would become negative.
        NumericalError: a weight overflows, or the outputs changed.
    """
    values = wide(model)
    scale(values, symmetries, scales)
    other = rounded(model, values)
    if example is not None:
        compare(model, other, example)
    return other


def smallest_scales(model: nn.Module, symmetries: Symmetries) -> Float[Tensor, " n"]:
    """The smallest scale of every neuron that running variances allow, (neurons + 1,) float64; 0 without a limit.

    A BatchNorm absorbs a factor s with var' = s^2 (var + eps) - eps >= 0, so that s >= sqrt(eps / (var + eps)).
    """
    buffers = {name: buffer.detach().cpu().double() for name, buffer in uncompiled(model).named_buffers()}
    return floor(buffers, symmetries)


def _requested(symmetries: Symmetries, alpha: float, *, node: bool, layers: Layers | None) -> dict[str, "float | Tensor"]:
    """Name -> factor (or bound) of every requested unit."""
    if layers is None:
        units: Sequence[Unit] = symmetries.require().units if node else [symmetries.default]
        return {unit.name: alpha for unit in units}
    if isinstance(layers, Mapping):
        named = dict(layers)
    else:
        named = dict.fromkeys([layers] if isinstance(layers, str) else layers, alpha)
    if not named:
        raise UsageError("expected at least one layer to rescale, found none", fix="name a layer, or leave `layers` out")
    return named


def _positive(value: float, what: str) -> float:
    """The value, after checking that it is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"expected {what} to be a finite number above 0, found {value:g}", fix="a scale is a positive number")
    return value
