"""Checks before the first derivative: derivatives exist, the Hessian is symmetric, and both agree with finite differences.

The checks run on some 8 samples (fewer of large ones), spread over the data, in float64, where rounding and the kinks of
rectifiers cannot hide a mistake. They fall back to the Objective's dtype for a network that requires it. If a network computes
internally in float32 whatever its dtype, its rounding error is measured first, and the tolerances follow it. Values are checked
by `landscape.network.forward_checks`.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.failing_layer import layer_of
from landscape.curvature.method import PLAIN
from landscape.errors import NumericalError, is_about_dtype, is_exhausted
from landscape.machine.arithmetic import grad_mode, values
from landscape.machine.distributed import ALONE
from landscape.network.batches import counted
from landscape.network.rounding import EXACT, Uncast, dtype_rounding, output_rounding

# From few kinks of a rectifier within a step to hardly any; below the last step, rounding in float64 would dominate.
_STEPS = (1e-6, 1e-7, 1e-8, 1e-9)
# Steps for losses, whose rounding errors count for more.
_VALUE_STEPS = (1e-4, 1e-5, 1e-6, 1e-7)
# Tolerated relative difference of Hv and a difference of gradients; larger where the network rounds both gradients.
_APART, _APART_ROUNDED = 0.05, 0.2
# Bytes of the weights, in float64, above which the symmetry is checked along the vector of the difference: a product less.
_MANY_WEIGHTS = 256 << 20
# Growth of the outputs' rounding errors in a product through a network of many layers.
_GROWTH = 1e3


@dataclass(frozen=True)
class Verdict:
    """What the checks found out about a network that passed them.

    Attributes:
        rounding: relative rounding error of its outputs, see `landscape.network.rounding`.
        in_float64: the same for the network in float64, in which it was checked; None if it refuses float64.
    """

    rounding: float
    in_float64: float | None


@grad_mode
def check_engine(engine: Engine) -> Verdict:
    """Run all checks of this module.

    Raises:
        NumericalError: a check failed; the message names the operation if it is known.

    Cost: some 20 gradients and up to 8 losses on 8 samples, or on a full batch if 8 samples have no second derivative, since
        some kernels have one for larger inputs only.
    """
    sizes = [engine.few, max(map(len, engine.batches))]
    for samples in sizes:
        probe = replace(engine, batches=[counted(engine.batches, samples)], group=ALONE, folded=None, method=PLAIN, held=None)
        try:
            return _checked(probe)
        except _NoDerivative as error:
            if samples == sizes[-1] or sizes[-1] <= engine.few:
                raise NumericalError(error.problem, fix=error.fix) from error.__cause__
    raise AssertionError  # the last size returns or raises


class _NoDerivative(NumericalError):
    """PyTorch raised an error while it differentiated."""


def _checked(probe: Engine) -> Verdict:
    """Check in float64, or in the dtype that the network requires."""
    exact: float | None = None
    try:
        double = probe.to(torch.float64)
        noise = output_rounding(double)
        if not (noise > EXACT and _checked_unrounded(double)):
            _check(double, noise, exact=True)
        exact = noise
    except (RuntimeError, TypeError) as error:
        if is_exhausted(error):
            raise
        if not is_about_dtype(error):
            raise _missing(probe, error) from error
        try:
            noise = output_rounding(probe)
            _check(probe, noise, exact=False)
        except (RuntimeError, TypeError) as second:
            if is_exhausted(second):
                raise
            raise _missing(probe, second) from second
    return Verdict(max(noise, dtype_rounding(probe)), exact)


def _checked_unrounded(double: Engine) -> bool:
    """Check a network that uses float32 internally without its casts to float32; returns False if it does not run like that.

    At steps larger than float32's rounding error a difference of gradients would include kinks. The derivative of a cast is a
    cast, so all other derivatives remain those of the network.
    """
    try:
        with Uncast():
            noise = output_rounding(double)
            if noise > EXACT:
                return False
            _check(double, noise, exact=True)
    except NumericalError:
        raise
    except Exception:  # mixed dtypes, or an operation on bits
        return False
    return True


def _missing(probe: Engine, error: Exception) -> _NoDerivative:
    """PyTorch's message, the layer that it comes from, and what to do about it."""
    first = str(error).partition("\n")[0]
    layer = layer_of(probe, str(error))
    if "modified by an inplace operation" in first:
        fix = "write out of place: h = h * 2 instead of h.mul_(2) or h *= 2"
    elif "checkpoint" in first.lower():
        fix = "pass use_reentrant=False to torch.utils.checkpoint.checkpoint; the reentrant kind has no second derivative"
    else:
        fix = "an operation inside it has no second derivative; values and surfaces need none"
    found = first if layer is None else f"in {layer}: {first}"
    return _NoDerivative(f"expected a network that can be differentiated twice, found {found}", fix=fix)


def _check(probe: Engine, noise: float, exact: bool) -> None:
    theta = probe.layout.flatten(dict(probe.model.named_parameters()))
    if exact:  # the network is a copy made for this check
        probe.hold(theta)
    _check_graph(probe, theta)
    value, gradient = probe.gradient(theta)
    if not (torch.isfinite(gradient).all() and abs(value) < float("inf")):
        raise NumericalError(
            f"expected a finite loss and gradient at the trained weights, found loss {value:.4g}",
            fix="check the preprocessing and that the weights belong to this model",
        )
    size = _sizes(probe, theta)
    if exact and noise < EXACT:
        _check_gradient(probe, theta, value, gradient, size)
    many = exact and theta.nbytes > _MANY_WEIGHTS
    zeros = _fill(probe, size) if many else []
    slope = float((size * gradient).norm())
    del gradient
    # One product after another: of a large network every vector counts.
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(probe.layout.size, generator=generator, dtype=torch.float64).to(theta) for _ in range(2))
    product = probe.hvp(theta, u[None])[0]
    if many:
        v.mul_(size)
    back, scale = float(v @ product), float(product.norm().double()) * float(v.norm().double())
    del product
    product = probe.hvp(theta, v[None])[0]
    forth, scale = float(u @ product), scale + float(product.norm().double()) * float(u.norm().double()) + 1e-30
    del u
    skew = abs(forth - back) / scale
    if not math.isfinite(skew):
        raise NumericalError(
            "expected finite Hessian-vector products, found that they overflow",
            fix="the weights or the inputs are far from the usual scale; rescale them",
        )
    if not skew < max(1e-9 if exact else 1e-4, min(_GROWTH * noise, 0.1)):
        raise NumericalError(
            f"expected a symmetric Hessian, found |u.Hv - v.Hu| = {skew:.1e} of its scale",
            fix="a custom backward in the network or the loss is wrong, or a double backward of PyTorch's is",
        )
    if not exact:
        return
    if many:
        apart = _difference(probe, theta, size, slope, v, product, noise)
        if apart is None:
            return
        if not zeros:
            _refuse(probe, apart)
        for part in (size, v):  # zero weights, as biases of a new network, may sit on the kinks of rectifiers
            tensors = probe.layout.unflatten(part)
            for name in zeros:
                tensors[name].zero_()
    else:
        v.mul_(size)
    del product
    product = probe.hvp(theta, v[None])[0]
    apart = _difference(probe, theta, size, slope, v, product, noise)
    if apart is not None:
        _refuse(probe, apart)


def _check_graph(probe: Engine, theta: Tensor) -> None:
    """Refuse reentrant checkpoints, which silently give only part of a derivative."""
    with probe.derivatives(theta), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        leaves = probe.leaves(theta)
        loss = probe.loss.mean(probe.forward(leaves, probe.batches[0]), probe.batches[0].target)
    # For inputs without a gradient it creates no node, but warns.
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


def _check_gradient(probe: Engine, theta: Tensor, value: float, gradient: Tensor, size: Tensor) -> None:
    """Compare the gradient with central differences of the loss, with steps proportional to each weight.

    A detached norm, or a backward pass that rescales its gradient, gives a gradient that is not the loss's, although its
    Jacobian may still be symmetric. The check is skipped where rounding hides the difference, as at an exact minimum; for a
    loss, rounding is that of numbers as large as the outputs.
    """
    scale = float((size * gradient).norm())
    generator = torch.Generator().manual_seed(1)
    w = size * torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    slope = float(gradient @ w)
    with values():
        largest = float(probe.forward(probe.tensors(theta), probe.batches[0]).detach().abs().max())
    errors = []
    for step in _VALUE_STEPS:
        least = _GROWTH * torch.finfo(theta.dtype).eps * (abs(value) + largest) / step
        if least >= _APART * scale:  # also if the slope is zero
            continue
        high, low = (_value(probe, theta.add(w, alpha=k * step)) for k in (1, -1))
        errors.append(abs((high - low) / (2 * step) - slope) / scale)
        if errors[-1] < _APART:
            return
    if errors and math.isfinite(min(errors)):
        raise NumericalError(
            f"expected the gradient to agree with a finite difference of the loss, found them {min(errors):.0%} apart",
            fix="a part that depends on the weights is detached, as the norm in DoRA, or a backward pass is an approximation; "
            "values and surfaces need none",
        )


def _value(probe: Engine, theta: Tensor) -> float:
    """Mean loss at theta."""
    with values():
        params = probe.tensors(theta)
        return sum(share * float(probe.loss.mean(probe.forward(params, b), b.target).detach()) for b, share in probe.weighted)


def _sizes(probe: Engine, theta: Tensor) -> Tensor:
    """Magnitude of every weight, or a small fraction of its tensor's where it is zero; 0 in a tensor of zeros."""
    named = probe.layout.unflatten(theta)
    return probe.layout.flatten({n: p.abs() + 1e-3 * p.square().mean().sqrt() for n, p in named.items()})


def _fill(probe: Engine, size: Tensor) -> list[str]:
    """Give the tensors whose size is 0 the mean size of the others, and return their names."""
    tensors = probe.layout.unflatten(size)
    zeros = [name for name, t in tensors.items() if not t.any()]
    mean = float(size.sum()) / max(int(size.count_nonzero()), 1) or 1.0
    for name in zeros:
        tensors[name].fill_(mean)
    return zeros


def _difference(
    probe: Engine, theta: Tensor, size: Tensor, slope: float, w: Tensor, product: Tensor, noise: float
) -> float | None:
    """Compare a product Hw, which is overwritten, with central differences of gradients: None if they agree, or how far apart.

    `size` is the unit of every weight, `slope` the norm of the gradient in these units.

    Steps proportional to each weight (or, if it is zero, to its tensor's size) are equivalent at all points of a scaling
    symmetry. A rectifier's kink between two points spoils one difference; a wrong second derivative spoils all. If the network
    rounds more coarsely than its dtype, the steps are chosen such that this noise is small.
    """
    probe.release()
    product.mul_(size)
    scale = float(product.norm()) + 1e-6 * slope + 1e-12
    exact = noise < EXACT
    steps = _STEPS if exact else tuple(noise**0.5 * k for k in (30.0, 10.0, 3.0, 1.0))
    errors = []
    for step in steps:
        difference = probe.gradient(theta.add(w, alpha=step))[1]
        difference.sub_(probe.gradient(theta.sub(w, alpha=step))[1]).mul_(size).div_(2 * step)
        errors.append(float(difference.sub_(product).norm()) / scale)
        if errors[-1] < (_APART if exact else _APART_ROUNDED):
            return None
        del difference
    return min(errors)


def _refuse(probe: Engine, apart: float) -> NoReturn:
    """Report products that differences of gradients contradict."""
    cause = ", or its forward pass changes its weights" if probe.writes else ""
    raise NumericalError(
        f"expected Hv to agree with a finite difference of gradients, found them {apart:.0%} apart",
        fix=f"an operation in the network or the loss has a wrong or missing second derivative, or rounds a weight{cause}",
    )
