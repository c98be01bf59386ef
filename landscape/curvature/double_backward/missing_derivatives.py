"""Operations whose second derivative is missing or wrong in PyTorch, composed of operations that have one.

Found by finite differences of gradients in float64 on torch 2.13: hardsigmoid, cdist of up to 25 rows, pdist, embedding_bag and
the two multi-class margin losses have no second derivative; that of `_weight_norm` treats its saved norms as constants. Every
other activation and loss of `torch.nn` is right, except ctc_loss, which has none and is not replaced here.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    y = F.hardtanh(x + 3, 0.0, 6.0) / 6
    return x.copy_(y) if inplace else y


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ||v||, with one norm for each index of dimension `dim`; -1 for a single norm."""
    if dim == -1:
        return v * (g / torch.linalg.vector_norm(v))
    others = [d for d in range(v.ndim) if d != dim]
    return v * (g / (torch.linalg.vector_norm(v, dim=others, keepdim=True) if others else v.abs()))


def embedding(
    ids: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table with a dense gradient, not scaled by frequency, since a scaled one is not a derivative."""
    if not (scale_grad_by_freq or sparse):
        return NotImplemented
    return F.embedding(ids, weight, padding_idx, max_norm, norm_type)


def embedding_bag(
    ids: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum of the rows of each bag; `max_norm` and padding are left to PyTorch."""
    if max_norm is not None or padding_idx is not None or mode not in ("sum", "mean", "max"):
        return NotImplemented
    if ids.ndim == 2:
        bag = torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1])
        bags = len(ids)
    else:
        if offsets is None:
            return NotImplemented
        starts = offsets[:-1] if include_last_offset else offsets
        bags = len(starts)
        bag = torch.searchsorted(starts, torch.arange(len(ids), device=ids.device, dtype=starts.dtype), right=True) - 1
        if bool((bag < 0).any()) or (include_last_offset and int(offsets[-1]) != len(ids)):
            return NotImplemented
    rows = F.embedding(ids.reshape(-1), weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    if mode == "max":
        index = bag[:, None].expand_as(rows)
        return rows.new_zeros(bags, rows.shape[1]).scatter_reduce(0, index, rows, "amax", include_self=False)
    total = rows.new_zeros(bags, rows.shape[1]).index_add(0, bag, rows)
    return total if mode == "sum" else total / bag.bincount(minlength=bags).clamp(min=1)[:, None]


def multi_margin_loss(
    x: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes j other than the target y of w_y max(0, margin - x_y + x_j)^p."""
    if size_average is not None or reduce is not None or x.ndim != 2:
        return NotImplemented
    labels = target[:, None]
    gaps = F.relu(margin - x.gather(1, labels) + x) ** p
    each = gaps.scatter(1, labels, 0.0).sum(1) / x.shape[1]
    return _reduced(each if weight is None else each * weight[target], reduction)


def multilabel_margin_loss(
    x: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes of max(0, 1 - x_y + x_j), over targets y before the first -1 and classes j that are no targets."""
    if size_average is not None or reduce is not None or x.ndim != 2:
        return NotImplemented
    valid = (target >= 0).cumprod(1).bool()
    places = target.clamp(min=0)
    member = torch.zeros_like(x, dtype=torch.long).scatter_add(1, places, valid.long()) > 0
    gaps = F.relu(1 - x.gather(1, places).unsqueeze(2) + x.unsqueeze(1))
    counted = valid.unsqueeze(2) & ~member.unsqueeze(1)
    return _reduced((gaps * counted).sum((1, 2)) / x.shape[1], reduction)


def _reduced(each: Tensor, reduction: str) -> Tensor:
    return each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """Distances of all pairs of rows, (..., P, R). Coinciding points have zero derivative, as in PyTorch.

    Cost: for p other than 2, memory for all differences.
    """
    if p == 0 or not x1.numel() or not x2.numel() or x1.dtype != x2.dtype:
        return NotImplemented
    if p != 2:
        return _minkowski(x1, x2, p)
    lead = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    a, b = x1.expand(*lead, *x1.shape[-2:]), x2.expand(*lead, *x2.shape[-2:])
    centre = b.detach().mean(-2, keepdim=True)  # does not change distances, reduces rounding
    return _Euclidean.apply(a - centre, b - centre)


def pdist(x: Tensor, p: float = 2.0) -> Tensor:
    """Distances of every row to the rows after it, (n (n - 1) / 2,)."""
    whole = cdist(x, x, p)
    if whole is NotImplemented:
        return whole
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return whole[first, second]


class _Euclidean(torch.autograd.Function):
    """d_ij = ||a_i - b_j||. Its gradient consists of products and d itself, so that all further derivatives exist."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        d = torch.ops.aten._cdist_forward(a, b, 2.0, 2)  # computed from differences, so coinciding points have distance 0
        ctx.save_for_backward(a, b, d)
        return d

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        a, b, d = ctx.saved_tensors
        distinct = d > 0
        r = torch.where(distinct, g / torch.where(distinct, d, 1.0), 0.0)
        return a * r.sum(-1, keepdim=True) - r @ b, b * r.sum(-2).unsqueeze(-1) - r.mT @ a


def _minkowski(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    """(sum over k of |x1_ik - x2_jk|^p)^(1/p)."""
    gaps = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).abs()
    if p == 1:
        return gaps.sum(-1)
    if p == math.inf:
        return gaps.amax(-1)
    total = _power(gaps, p).sum(-1)
    return _power(total, 1 / p)


def _power(x: Tensor, p: float) -> Tensor:
    """x^p for x >= 0, with zero derivatives at 0."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).pow(p), 0.0)
