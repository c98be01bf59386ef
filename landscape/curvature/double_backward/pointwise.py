"""Activations that save their first two derivatives, so that a second derivative takes three multiplications.

y = f(x) has the gradient g f'(x). Its derivative along u is u f'(x) for g and u g f''(x) for x; f' and g f'' do not depend on
u, and are saved for all products that use the graph.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last

Derivatives = tuple[Tensor, Tensor, Tensor]


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); its second derivative is zero wherever it exists."""
    if inplace and not (x.requires_grad and not x.is_leaf):
        return NotImplemented
    return _Relu.apply(x, inplace)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x Phi(x); the tanh approximation is left to PyTorch."""
    return NotImplemented if approximate != "none" else _apply(x, _gelu)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    """x / (1 + exp(-x))."""
    return NotImplemented if inplace else _apply(x, _silu)


def tanh(x: Tensor) -> Tensor:
    """tanh(x)."""
    return _apply(x, _tanh)


def _gelu(x: Tensor) -> Derivatives:
    phi = torch.exp(x.square().mul_(-0.5)).mul_(1 / math.sqrt(2 * math.pi))
    whole = torch.special.ndtr(x)
    return x * whole, torch.addcmul(whole, x, phi), phi.mul_(x.square().neg_().add_(2))


def _silu(x: Tensor) -> Derivatives:
    s = torch.sigmoid(x)
    y = x * s
    slope = torch.addcmul(s, y, 1 - s)
    return y, slope, (1 - s) * (s + slope - y * s)


def _tanh(x: Tensor) -> Derivatives:
    y = torch.tanh(x)
    slope = 1 - y.square()
    return y, slope, -2 * y * slope


def _apply(x: Tensor, derivatives: Callable[[Tensor], Derivatives]) -> Tensor:
    return _Pointwise.apply(x, derivatives)


class _Pointwise(Function):
    """y = f(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, derivatives: Callable[[Tensor], Derivatives]) -> Tensor:
        y, slope, bend = derivatives(x)
        ctx.save_for_backward(x, slope, bend)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, slope, bend = ctx.saved_tensors
        return (_PointwiseSlope.apply(g, x, slope, bend) if torch.is_grad_enabled() else g * slope), None


class _PointwiseSlope(Function):
    """(g, x) -> g f'(x)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
        ctx.save_for_backward(slope, g * bend)
        return g * slope

    @staticmethod
    @last
    def backward(ctx: Any, u: Tensor) -> Any:
        slope, bend = ctx.saved_tensors
        return u * slope, (u * bend if ctx.needs_input_grad[1] else None), None, None


class _Relu(Function):
    """y = max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return _ReluSlope.apply(g, y.detach()), None


class _ReluSlope(Function):
    """(g, y) -> g where y > 0, else 0; constant in y."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.ops.aten.threshold_backward(g, y, 0)

    @staticmethod
    @last
    def backward(ctx: Any, u: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(u, y, 0), None
