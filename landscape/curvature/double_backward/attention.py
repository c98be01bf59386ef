"""Softmax whose second derivative takes two fused passes, and attention based on it."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last


def softmax(x: Tensor, dim: Any = None, *options: Any, **named: Any) -> Tensor:
    """exp(x) / sum exp(x) along a dimension; with other options, which differ between its functions, left to PyTorch."""
    if not isinstance(dim, int) or any(v is not None for v in (*options, *(v for k, v in named.items() if k != "_stacklevel"))):
        return NotImplemented
    return _Softmax.apply(x, dim)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T scale + mask) v; dropout, grouped queries and masks (which may mask a whole row) are left to PyTorch."""
    if dropout_p or enable_gqa or attn_mask is not None:
        return NotImplemented
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    return _Softmax.apply(scores, -1) @ value


class _Softmax(Function):
    """p = softmax(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        p = torch.softmax(x, dim)
        ctx.save_for_backward(p)
        ctx.dim = dim
        return p

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (p,) = ctx.saved_tensors
        return _SoftmaxSlope.apply(g, p, ctx.dim), None


class _SoftmaxSlope(Function):
    """(g, p) -> p (g - m) with m = <g, p>.

    For a cotangent u, g gets p (u - <u, p>) and p gets (g - m) (u - <u, p>) - m <u, p>.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, p: Tensor, dim: int) -> Tensor:
        mean = (g * p).sum(dim, keepdim=True)
        above = g - mean
        ctx.save_for_backward(p, above, mean)
        ctx.dim = dim
        return p * above

    @staticmethod
    @last
    def backward(ctx: Any, u: Tensor) -> Any:
        p, above, mean = ctx.saved_tensors
        level = (u * p).sum(ctx.dim, keepdim=True)
        rest = u - level
        to_p = torch.addcmul(mean * level, above, rest, value=-1).neg_() if ctx.needs_input_grad[1] else None
        return rest.mul_(p), to_p, None
