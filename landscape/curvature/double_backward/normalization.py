"""LayerNorm whose second derivative takes three fused passes, and BatchNorm in eval mode as an affine map."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """w (x - mean) / sqrt(var + eps) + b over the last dimensions."""
    if weight is None and bias is not None:  # PyTorch's LayerNorm has no second derivative in this case
        return layer_norm(x, normalized_shape, None, None, eps) + bias
    return _LayerNorm.apply(x, weight, bias, tuple(normalized_shape), eps)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """With running statistics: a x + c in each channel, computed from the original weights; training mode stays PyTorch's."""
    if training or running_mean is None or running_var is None:
        return NotImplemented
    along = (-1, *(1 for _ in x.shape[2:]))
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    return torch.addcmul(shift.view(along), x, scale.view(along))


def _slope(
    g: Tensor, x: Tensor, shape: tuple[int, ...], mean: Tensor, rstd: Tensor, weight: Tensor | None, wanted: list[bool]
) -> Any:
    """Gradients of input, weight and bias: r P(w g), with P z = z - mean(z) - xhat mean(xhat z), sum g xhat, and sum g."""
    # Only the shape of the bias argument is read; it equals the weight's.
    return torch.ops.aten.native_layer_norm_backward(g, x, list(shape), mean, rstd, weight, weight, wanted)


class _LayerNorm(Function):
    """y = w xhat + b, xhat = (x - mean) r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...], eps: float) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, list(shape), weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.shape = shape
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:3])
        gx, gw, gb = _LayerNormSlope.apply(g.contiguous(), x, weight, mean, rstd, ctx.shape, needs)
        return gx if needs[0] else None, gw if needs[1] else None, gb if needs[2] else None, None, None


class _LayerNormSlope(Function):
    """(g, x, w) -> gradients of <g, LayerNorm(x)> with respect to x, w, b.

    With D values a row, for cotangents (u, v, b) of the three: g gets w r P(u) + v xhat + b, w gets sum g r P(u), and x gets
    r P(v g) - (r / D) (xhat <u, gx> + r P(u) <xhat, w g> + gx <xhat, u>), where gx = r P(w g).
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, shape: tuple[int, ...], needs: Any
    ) -> Any:
        gx, gw, gb = _slope(g, x, shape, mean, rstd, weight, [True, weight is not None, needs[2]])
        ctx.rows = tuple(range(-len(shape), 0))
        unit = (x - mean) * rstd
        slant = (unit * (g if weight is None else g * weight)).sum(ctx.rows, keepdim=True) * rstd / math.prod(shape)
        ctx.save_for_backward(g, x, weight, mean, rstd, gx, unit, slant)
        ctx.shape = shape
        ctx.set_materialize_grads(False)
        return gx, gw, gb

    @staticmethod
    @last
    def backward(ctx: Any, u: Tensor | None, uw: Tensor | None, ub: Tensor | None) -> Any:
        g, x, weight, mean, rstd, gx, unit, slant = ctx.saved_tensors
        needs_x = ctx.needs_input_grad[1]
        to_g: Tensor | None = None
        to_x: Tensor | None = None
        to_weight: Tensor | None = None
        if u is not None:
            u = u.contiguous()
            flat = _slope(u, x, ctx.shape, mean, rstd, None, [True, False, False])[0]
            to_g = flat if weight is None else flat * weight
            if ctx.needs_input_grad[2]:
                to_weight = (g * flat).sum(tuple(range(g.ndim - len(ctx.shape))))
            if needs_x:
                share = rstd / math.prod(ctx.shape)
                along_x = (u * gx).sum(ctx.rows, keepdim=True).mul_(share)
                along_g = (u * unit).sum(ctx.rows, keepdim=True).mul_(share)
                to_x = torch.addcmul(unit * along_x, flat, slant).addcmul_(gx, along_g).neg_()
        if uw is not None:
            to_g = unit * uw if to_g is None else torch.addcmul(to_g, unit, uw)
            if needs_x:
                through = _slope(g, x, ctx.shape, mean, rstd, uw, [True, False, False])[0]
                to_x = through if to_x is None else to_x.add_(through)
        if ub is not None:
            to_g = ub.expand_as(g) if to_g is None else to_g + ub
        return to_g, to_x, to_weight, None, None, None, None
