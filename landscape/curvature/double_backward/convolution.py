"""Convolution whose second derivative consists of convolutions only.

PyTorch's own double backward computes the weight's part as a convolution with a kernel of the size of the image, which takes
longer than all other parts together. Here it is computed as a weight gradient.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """conv1d, conv2d or conv3d, by the dimension of the weight; NotImplemented for string padding or an unbatched input."""
    dims = weight.ndim - 2
    if isinstance(padding, str) or x.ndim != weight.ndim:
        return NotImplemented
    options = (_each(stride, dims), _each(padding, dims), _each(dilation, dims), groups)
    return _Convolution.apply(x, weight, bias, *options)


def _each(option: Any, dims: int) -> list[int]:
    """One number for each dimension."""
    numbers = list(option) if isinstance(option, Sequence) else [option]
    return numbers * dims if len(numbers) == 1 else numbers


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
    stride, padding, dilation, groups = options
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)


def _backward(g: Tensor, x: Tensor, weight: Tensor, options: tuple[Any, ...], wanted: list[bool]) -> Any:
    """Gradients of input, weight and bias, where wanted."""
    stride, padding, dilation, groups = options
    return torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)], stride, padding, dilation, False, [0] * len(stride), groups, wanted
    )


class _Convolution(Function):
    """y = w * x + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = options
        return _forward(x, weight, bias, options)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return (*_Slope.apply(g, x, weight, list(ctx.needs_input_grad[:3]), *ctx.options), None, None, None, None)


class _Slope(Function):
    """(g, x, w) -> gradients of <g, w * x + b> with respect to x, w, b; bilinear in its inputs."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool], *options: Any) -> Any:
        ctx.save_for_backward(g, x, weight)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return _backward(g, x, weight, options, wanted)

    @staticmethod
    @last
    def backward(ctx: Any, u: Tensor | None, uw: Tensor | None, ub: Tensor | None) -> Any:
        g, x, weight = ctx.saved_tensors
        needs_g, needs_x, needs_weight = ctx.needs_input_grad[:3]
        to_g = None
        if needs_g:
            to_g = _forward(x, uw, ub, ctx.options) if uw is not None else None
            if u is not None:
                through = _forward(u, weight, ub if uw is None else None, ctx.options)
                to_g = through if to_g is None else to_g.add_(through)
            if to_g is None and ub is not None:
                to_g = ub.view(-1, *(1 for _ in g.shape[2:])).expand_as(g)
        to_x = _backward(g, x, uw, ctx.options, [True, False, False])[0] if needs_x and uw is not None else None
        to_weight = _backward(g, u, weight, ctx.options, [False, True, False])[1] if needs_weight and u is not None else None
        return (to_g, to_x, to_weight, None, *(None for _ in ctx.options))
