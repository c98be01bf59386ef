"""Rounding error of a network's outputs, also for a network that computes internally in another dtype."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from landscape.machine.arithmetic import values
from landscape.machine.dispatch_mode import DispatchMode
from landscape.network.forward import ForwardPass

# Relative rounding error of outputs below which a network computes in float64 throughout.
EXACT = 1e-12


def output_rounding(network: ForwardPass) -> float:
    """Relative rounding error of the network's outputs: the noise of second differences at very small steps.

    The second difference of outputs at theta - h w, theta, theta + h w, with w of the size of the weights, has three parts:
    h^2 times a curvature, h times the slopes of kinks in between, and rounding, which alone does not shrink with h. Its
    smallest value over h = 1e-5, 1e-6, 1e-7 is therefore close to the rounding error of float32 arithmetic: some 1e-7 for a
    network that uses float32 internally. A few outputs may not show the rounding, and in half precision such steps change
    nothing; so the result is at least a quarter of the spacing of the coarsest dtype used, unless only constants have that
    dtype. If nothing is cast to a coarser dtype, the result is that of the dtype, 2e-16 in float64, since among millions of
    rectifiers a kink lies within every one of these steps.

    Reference: the difference table of Moré and Wild 2011, doi:10.1137/100786125, at its second row.
    """
    theta = network.layout.flatten(dict(network.model.named_parameters()))
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta) * theta.abs()
    least = math.inf
    with values(), _Types() as types:
        network.forward(network.tensors(theta), network.batches[0])
    eps = float(torch.finfo(theta.dtype).eps)
    if not types.cast:
        return max(eps, types.spacing / 4)
    with values():
        for h in (1e-5, 1e-6, 1e-7):
            low, mid, high = (
                network.forward(network.tensors(theta + k * h * step), network.batches[0]).detach() for k in (-1, 0, 1)
            )
            noise = float((high - 2 * mid + low).double().norm()) / 6**0.5
            least = min(least, noise / (float(mid.double().norm()) + 1e-300))
    coarsest = types.spacing if least < EXACT else max(types.spacing, types.cast)
    return max(least, eps, coarsest / 4)


class _Types(DispatchMode):
    """Records the precisions that are used inside the block.

    Attributes:
        spacing: of the coarsest half-precision dtype; 0 without one.
        cast: spacing of the coarsest dtype to which a finer one was cast; 0 without a cast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spacing, self.cast = 0.0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        finest = min(_spacings(pytree.arg_tree_leaves(*args, **(kwargs or {}))), default=math.inf)
        coarsest = max(_spacings(out if isinstance(out, (tuple, list)) else (out,)), default=0.0)
        if finest < coarsest:
            self.cast = max(self.cast, coarsest)
        if coarsest > torch.finfo(torch.float32).eps:
            self.spacing = max(self.spacing, coarsest)
        return out


def _spacings(things: Iterable[Any]) -> list[float]:
    """Spacings of the dtypes of the real and complex tensors among the arguments."""
    kinds = [t.dtype for t in things if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]
    return [float(torch.finfo(kind).eps) for kind in kinds]


def dtype_rounding(network: ForwardPass) -> float:
    """Relative rounding error of the network's dtype, or of a half precision that it uses internally, as under autocast."""
    with values(), _Types() as types:
        network.forward(dict(network.model.named_parameters()), network.batches[0])
    dtype = next(p.dtype for p in network.model.parameters() if p.is_floating_point())
    return max(float(torch.finfo(dtype).eps), types.spacing / 4)


class Uncast(TorchFunctionMode):
    """Ignores requests to cast float64 to float32 inside the block."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(a, Tensor) and a.dtype == torch.float64 for a in args):
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            kwargs = {k: torch.float64 if a is torch.float32 else a for k, a in kwargs.items()}
        return func(*args, **kwargs)
