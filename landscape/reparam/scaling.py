"""Move along a network's scaling symmetries: other weights, the same function."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError
from landscape.network.copying import uncompiled
from landscape.network.graph import Example, arguments, copied, example_for
from landscape.symmetry.finding import find_symmetries, values_in
from landscape.symmetry.symmetries import Symmetries, Unit

# How far rounding the new weights to their dtype may move the outputs, relative to the largest output.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}

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
    """A network with other weights and the same function.

    Layer-wise, Dinh et al.'s T_alpha: what a layer computes is multiplied by alpha, the weights that read it are divided by
    alpha. With D the diagonal matrix of all factors, theta' = D theta, the gradient becomes D^-1 g and the Hessian D^-1 H D^-1.
    With BatchNorm, gamma and beta are what multiplies a layer, and the weights before it alone can be scaled too: the running
    statistics, (var + eps) included, take that up exactly.

    Args:
        model: a network in which `find_symmetries` finds something; it is copied and left as it was.
        alpha: the factor, > 0, of every unit for which `layers` gives no other.
        node: give each neuron or channel a factor of its own, log-uniform in [1/alpha, alpha].
        layers: names of the layers to rescale, or name -> factor (or a factor for each neuron). Default: with `node` all units;
            else the first one that multiplies one layer's weights and divides another's.
        example: an input, (B, ...), to trace the network with; not needed if the network begins with a Linear layer.
        generator: for `node`; default: one with seed 0.

    Returns:
        a copy, in the mode, dtype and on the device of the model. New weights are computed in float64 and rounded once: with
        powers of two, and no running statistics involved, outputs are the same bit for bit.

    Raises:
        UsageError: no symmetry, an unknown layer, a factor that is not positive or that would make a running variance negative.
        NumericalError: a weight overflows its dtype, or the outputs on the example moved by more than rounding explains.

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
    """The point of the symmetry group that `rescale` moves to; its arguments are those of `rescale`.

    Returns:
        scales, (neurons + 1,), float64, for `apply` and `factors`.
    """
    named = _requested(symmetries, _positive(alpha, "alpha"), node=node, layers=layers)
    if not node:
        return symmetries.layerwise(named)
    drawn: dict[str, float | Tensor] = {}
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    floor = smallest_scales(model, symmetries)
    for name, bound in named.items():
        if isinstance(bound, Tensor) and bound.ndim:
            raise UsageError(f"expected one bound for {name} with node=True, found {len(bound)} factors", fix="drop node")
        neurons = symmetries[name].neurons
        # Signed: 1/alpha is the inverse of alpha, so that each neuron moves continuously with alpha.
        span = math.log(_positive(float(bound), f"the bound of {name}"))
        uniform = torch.rand(len(neurons), generator=generator, device=generator.device, dtype=torch.float64).cpu()
        # A BatchNorm whose variance is below eps cannot take up a small factor: the draw stops at the smallest it can.
        drawn[name] = torch.exp((2 * uniform - 1) * span).maximum(floor[neurons])
    return symmetries.layerwise(drawn)


def factors(model: nn.Module, symmetries: Symmetries, scales: Float[Tensor, " n"]) -> dict[str, Float[Tensor, "..."]]:
    """The diagonal D of theta' = D theta: parameter -> its factors, in its shape, float64, on the CPU."""
    named = {}
    for name, p in uncompiled(model).named_parameters():
        scaling = symmetries.scalings.get(name)
        factor = torch.ones((), dtype=torch.float64) if scaling is None else scaling.factor(scales)
        named[name] = factor.expand(p.shape).clone()
    return named


def apply(
    model: nn.Module, symmetries: Symmetries, scales: Float[Tensor, " n"], *, example: Example | None = None
) -> nn.Module:
    """A copy of the network with its weights and running statistics moved by `scales`.

    Args:
        model: the network in which `symmetries` were found, or one with the same names.
        symmetries: from `find_symmetries`.
        scales: (neurons + 1,) float64, from `scales_for` or `Symmetries.layerwise`.
        example: if given, the outputs on it are compared before and after.

    Raises:
        UsageError: a running variance would become negative.
        NumericalError: a weight overflows, or the outputs moved.
    """
    other = copied(model)
    tensors: dict[str, Tensor] = dict(other.named_parameters()) | dict(other.named_buffers())
    with torch.no_grad():
        for name, scaling in symmetries.scalings.items():
            old = tensors[name]
            wide = torch.promote_types(old.dtype, torch.float64)
            factor = scaling.factor(scales)
            if bool((factor == 1).all()):
                continue
            value = old.cpu().to(wide)
            new = value * factor if scaling.eps is None else _variance(name, value, factor, scaling.eps)
            rounded = new.to(old.dtype)
            if not bool(torch.isfinite(rounded[torch.isfinite(value)]).all()):
                raise NumericalError(
                    f"expected rescaled weights within {old.dtype}, found overflow in {name}", fix="use a milder factor"
                )
            old.copy_(rounded)
    if example is not None:
        _compare(model, other, example)
    return other


def smallest_scales(model: nn.Module, symmetries: Symmetries) -> Float[Tensor, " n"]:
    """The smallest scale of every neuron that running variances can take up, (neurons + 1,) float64; 0 where nothing limits it.

    A BatchNorm takes up a factor s with var' = s^2 (var + eps) - eps >= 0, so that s >= sqrt(eps / (var + eps)).
    """
    smallest = torch.zeros(symmetries.neurons + 1, dtype=torch.float64)
    buffers = dict(uncompiled(model).named_buffers())
    for name, scaling in symmetries.scalings.items():
        if scaling.eps is not None:
            bound = (scaling.eps / (buffers[name].detach().cpu().double() + scaling.eps)).sqrt()
            smallest.scatter_reduce_(0, scaling.num.expand(scaling.shape), bound, "amax")
    smallest[0] = 0.0
    return smallest


def outputs_of(model: nn.Module, example: Example, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Every floating-point tensor that a copy of the network in eval mode returns for the example, on the CPU."""
    args, kwargs = arguments(example)

    def cast(value: Any) -> Any:
        return value.to(dtype) if dtype and isinstance(value, Tensor) and value.is_floating_point() else value

    own = copied(model).cpu().eval()
    with torch.no_grad():
        result = (own.to(dtype) if dtype else own)(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})
    listed = values_in(list(result.values()) if isinstance(result, Mapping) else result)
    return [v for v in listed if isinstance(v, Tensor) and v.is_floating_point()]


def _variance(name: str, value: Tensor, factor: Tensor, eps: float) -> Tensor:
    """A running variance v with (v + eps) times the square of the factor, which must not take v below zero."""
    new = factor.square() * (value + eps) - eps
    if bool((new < -1e-9 * eps).any()):
        smallest = float((eps / (value.min() + eps)).sqrt())
        raise UsageError(
            f"expected a factor of at least {smallest:.3g} where {name} takes it up, found {float(factor.min()):.3g}",
            fix="a smaller one would make this variance negative: choose a larger factor or another layer",
        )
    return new.clamp_min(0.0)


def _compare(before: nn.Module, after: nn.Module, example: Example) -> None:
    """Raise if the two networks differ on the example by more than rounding: the last line of defence against a wrong rule."""
    tolerance = max((TOLERANCE.get(p.dtype, 0.0) for p in before.parameters()), default=0.0)
    try:
        pairs = list(zip(outputs_of(before, example, torch.float64), outputs_of(after, example, torch.float64), strict=True))
    except RuntimeError:  # a network that makes float32 tensors of its own cannot run in float64
        pairs = list(zip(outputs_of(before, example), outputs_of(after, example), strict=True))
    for x, y in pairs:
        moved, scale = float((x - y).abs().max()), float(x.abs().max())
        if not moved <= tolerance * scale:
            raise NumericalError(
                f"expected outputs to move by at most {tolerance:.0e} of the largest, found {moved:.2e} against {scale:.2e}",
                fix="use a factor nearer to 1; if that does not help, the network does something that tracing did not see",
            )


def _requested(symmetries: Symmetries, alpha: float, *, node: bool, layers: Layers | None) -> dict[str, "float | Tensor"]:
    """Name -> factor (or bound) of every unit that was asked for."""
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
    """The value, if it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"expected {what} to be a finite number above 0, found {value:g}", fix="a scale is a positive number")
    return value
