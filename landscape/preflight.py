"""Checks of derivatives, made once before one is believed: they exist, are symmetric, and agree with differences.

They run on some 8 samples, spread over the data, in float64, where rounding and the kinks of rectifiers cannot hide a mistake,
and fall back to the Objective's own dtype for a network that insists on it. Where a network computes in float32 inside whatever
it is given, what it rounds away is measured first, and nothing finer is asked of it. What values need is checked by
`landscape.forward_checks`.
"""

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.arithmetic import values
from landscape.batches import counted
from landscape.culprit import layer_of
from landscape.curvature import Engine
from landscape.distributed import ALONE
from landscape.errors import NumericalError
from landscape.method import PLAIN

SAMPLES = 8
# From few kinks of a rectifier to hardly any; at the last, rounding in float64 is about to take over.
_STEPS = (1e-6, 1e-7, 1e-8, 1e-9)
# Of Hv, between it and a difference of gradients; where the network rounds, both ends of the difference do.
_APART, _APART_ROUNDED = 0.05, 0.2
# What may be lost in a product: rounding errors of the outputs, times what a network of many layers makes of them.
_GROWTH = 1e3


@torch.inference_mode(False)
@torch.enable_grad()
def check_engine(engine: Engine) -> float:
    """All checks of the module's docstring.

    Returns:
        Rounding of the network as it computes, see `rounding`.

    Raises:
        NumericalError: what failed, with the operation where it can be told.

    Cost: some 20 gradients on 8 samples; on as many as a batch has where 8 have no second derivative. Some kernels have one for
        larger inputs only.
    """
    sizes = [SAMPLES, max(map(len, engine.batches))]
    for samples in sizes:
        own = replace(engine, batches=[counted(engine.batches, samples)], group=ALONE, folded=None, method=PLAIN, held=None)
        try:
            return _checked(own)
        except _NoDerivative as error:
            if samples == sizes[-1] or sizes[-1] <= SAMPLES:
                raise NumericalError(error.problem, fix=error.fix) from error.__cause__
    raise AssertionError  # the last of the sizes returns or raises


def rounding(engine: Engine) -> float:
    """Relative rounding error of the network's outputs, as it computes them: the noise of second differences at tiny steps.

    Outputs at theta - h w, theta, theta + h w, for w of the size of the weights, differ from a straight line by h^2 times a
    curvature, by h times the slopes of the kinks between them, and by rounding, which alone does not shrink with h. So the
    smallest over h = 1e-5, 1e-6, 1e-7 is close to rounding where that is of float32, and harmless where it is not. About 1e-16
    for a network that computes in float64 throughout, 1e-7 for one with a float32 inside. Where it computes in half precision
    inside, such steps change nothing: it is then at least a quarter of that type's spacing.

    Reference: the difference table of Moré and Wild 2011, doi:10.1137/100786125, at its second row.
    """
    theta = engine.layout.flatten(dict(engine.model.named_parameters()))
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta) * theta.abs()
    least = math.inf
    with values(), _Halves() as halves:
        engine.forward(engine.tensors(theta), engine.batches[0])
    with values():
        for h in (1e-5, 1e-6, 1e-7):
            low, mid, high = (
                engine.forward(engine.tensors(theta + k * h * step), engine.batches[0]).detach() for k in (-1, 0, 1)
            )
            noise = float((high - 2 * mid + low).double().norm()) / 6**0.5
            least = min(least, noise / (float(mid.double().norm()) + 1e-300))
    return max(least, torch.finfo(theta.dtype).eps, halves.spacing / 4)


class _Halves(TorchDispatchMode):
    """The spacing of the coarsest half precision that something is computed in inside the block; 0 where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.spacing = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would import its compiler to be told that it need not look here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, Tensor) and t.dtype in (torch.float16, torch.bfloat16):
                self.spacing = max(self.spacing, torch.finfo(t.dtype).eps)
        return out


def is_about_dtype(error: Exception) -> bool:
    """Whether a network that was converted to float64 complains that it insists on another dtype."""
    return any(word in str(error) for word in ("dtype", "Float", "Double", "scalar type"))


class _NoDerivative(NumericalError):
    """PyTorch raised while derivatives were taken."""


def _checked(own: Engine) -> float:
    """In float64, or as the network insists on."""
    try:
        double = own.to(torch.float64)
        noise = rounding(double)
        _check(double, noise, exact=True)
    except (RuntimeError, TypeError) as error:
        if not is_about_dtype(error):
            raise _missing(own, error) from error
        try:
            noise = rounding(own)
            _check(own, noise, exact=False)
        except (RuntimeError, TypeError) as second:
            raise _missing(own, second) from second
    own_dtype = next(p.dtype for p in own.model.parameters() if p.is_floating_point())
    return max(noise, torch.finfo(own_dtype).eps)


def _missing(own: Engine, error: Exception) -> _NoDerivative:
    """What PyTorch said, the layer that it comes from, and what to do about it."""
    first = str(error).partition("\n")[0]
    layer = layer_of(own, str(error))
    if "modified by an inplace operation" in first:
        fix = "write out of place there: h = h * 2 instead of h.mul_(2) or h *= 2"
    elif "checkpoint" in first.lower():
        fix = "pass use_reentrant=False to torch.utils.checkpoint.checkpoint; the reentrant kind has no second derivative"
    else:
        fix = "an operation inside it has no second derivative; values and surfaces need none"
    found = first if layer is None else f"in {layer}: {first}"
    return _NoDerivative(f"expected a network that can be differentiated twice, found {found}", fix=fix)


def _check(probe: Engine, noise: float, exact: bool) -> None:
    theta = probe.layout.flatten(dict(probe.model.named_parameters()))
    _check_graph(probe, theta)
    value, gradient = probe.gradient(theta)
    if not (torch.isfinite(gradient).all() and abs(value) < float("inf")):
        raise NumericalError(
            f"expected a finite loss and gradient at the trained weights, found loss {value:.4g}",
            fix="check the preprocessing and that the weights belong to this model",
        )
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, probe.layout.size, generator=generator, dtype=torch.float64).to(theta)
    hu, hv = probe.hvp(theta, torch.stack((u, v)))
    scale = float((hu.norm() * v.norm() + hv.norm() * u.norm()).double()) + 1e-30
    skew = abs(float(u @ hv) - float(v @ hu)) / scale
    if not math.isfinite(skew):
        raise NumericalError(
            "expected finite Hessian-vector products, found that they overflow",
            fix="the weights or the inputs are far from the usual scale; rescale them",
        )
    if not skew < max(1e-9 if exact else 1e-4, min(_GROWTH * noise, 0.1)):
        raise NumericalError(
            f"expected a symmetric Hessian, found |u.Hv - v.Hu| = {skew:.1e} of its scale",
            fix="a custom backward in the network or the loss is wrong, or PyTorch's own is, of a derivative within it",
        )
    if exact:
        _check_difference(probe, theta, gradient, v, noise)


def _check_graph(probe: Engine, theta: Tensor) -> None:
    """Refuse what gives part of a derivative without an error: reentrant checkpoints."""
    with probe.derivatives(theta), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        leaves = probe.leaves(theta)
        loss = probe.loss.mean(probe.forward(leaves, probe.batches[0]), probe.batches[0].target)
    # Of inputs without a gradient it makes no node at all, and says so.
    reentrant = any("None of the inputs have requires_grad" in str(w.message) for w in said)
    seen, left = set(), [loss.grad_fn]
    while left and not reentrant:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            reentrant = node.name().startswith("CheckpointFunction")
            left += [parent for parent, _ in node.next_functions]
    if reentrant:
        raise NumericalError(
            "expected activation checkpointing that can be differentiated twice, found the reentrant kind",
            fix="pass use_reentrant=False to torch.utils.checkpoint.checkpoint",
        )


def _check_difference(probe: Engine, theta: Tensor, gradient: Tensor, v: Tensor, noise: float) -> None:
    """Hv against central differences of gradients.

    Steps in proportion to each weight (or, where it is zero, to its tensor's size) mean the same at every point of a scaling
    symmetry. A rectifier's kink between two points spoils their difference; a wrong second derivative spoils it at every step.
    Where the network rounds more coarsely than its dtype, steps are those at which that noise is small.
    """
    named = probe.layout.unflatten(theta)
    size = probe.layout.flatten({n: p.abs() + 1e-3 * p.square().mean().sqrt() for n, p in named.items()})
    w = size * v
    product = size * probe.hvp(theta, w[None])[0]
    scale = float(product.norm() + 1e-6 * (size * gradient).norm() + 1e-12)
    exact = noise < 1e-12
    steps = _STEPS if exact else tuple(noise**0.5 * k for k in (30.0, 10.0, 3.0, 1.0))
    errors = []
    for step in steps:
        difference = size * (probe.gradient(theta + step * w)[1] - probe.gradient(theta - step * w)[1]) / (2 * step)
        errors.append(float((difference - product).norm()) / scale)
        if errors[-1] < (_APART if exact else _APART_ROUNDED):
            return
    why = ", or its forward pass changes its weights" if probe.writes else ""
    raise NumericalError(
        f"expected Hv to agree with a finite difference of gradients, found them {min(errors):.0%} apart",
        fix=f"an operation in the network or the loss has a wrong or missing second derivative{why}",
    )
