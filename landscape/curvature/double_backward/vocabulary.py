"""Cross-entropy of many classes, and of the linear layer that gives their logits, with second derivatives in closed form.

With logits z = h W^T + b of a token, p = softmax(z) and the token's target distribution q, the mean loss sum_t c_t l_t has the
derivative G = c (p - q) in z, and G has the derivative c (p * zdot - p <p, zdot>) along zdot. PyTorch builds that of some ten
tensors of the shape of z, tokens by classes. Here, blocks of tokens are recomputed from h, W and log sum exp(z), and no tensor
of that shape is kept for a second derivative.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from landscape.curvature.double_backward.differentiation_limit import last
from landscape.curvature.double_backward.row_blocks import blocks

# Fewest classes for which this pays: with fewer, what surrounds the loss dominates memory and time.
CLASSES = 1024
# Tokens of a block. Each block's part of the derivative is added to that of the whole weight matrix, which with fewer tokens
# takes as long as the products.
TOKENS = 512


class Head(NamedTuple):
    """The linear layer of some logits.

    Attributes:
        inputs: (N, D), of N tokens.
        weight, bias: (V, D) and (V,), or no bias.
    """

    inputs: Float[Tensor, "N D"]
    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None


class Targets(NamedTuple):
    """What cross-entropy compares the logits with.

    Attributes:
        labels: (N,) classes.
        counts: (N,) c, the share of each token in the loss.
        smoothing: weight of the uniform distribution in the targets.
    """

    labels: Int[Tensor, " N"]
    counts: Float[Tensor, " N"]
    smoothing: float


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    head: tuple[Head, Int[Tensor, "B ..."]] | None = None,
) -> Tensor:
    """Mean or sum over targets of -log softmax(logits)[target], classes along dimension 1.

    Targets that are distributions, smoothed labels with class weights, losses of each target and few classes are left to
    PyTorch, as is a batch whose targets are all ignored.

    Args:
        head: the linear layer that gives the logits, and for every target the row of its input; None if unknown.
    """
    if (
        logits.ndim < 2
        or logits.shape[1] < CLASSES
        or target.is_floating_point()
        or target.shape != (len(logits), *logits.shape[2:])
        or reduction not in ("mean", "sum")
        or size_average is not None
        or reduce is not None
        or (weight is not None and (label_smoothing or weight.requires_grad))
    ):
        return NotImplemented
    labels, kept = target.reshape(-1), (target.reshape(-1) != ignore_index).nonzero()[:, 0]
    if not len(kept):
        return NotImplemented
    every = len(kept) == len(labels)
    labels = labels.clone() if every else labels[kept]  # the caller may write to its own
    if bool(((labels < 0) | (labels >= logits.shape[1])).any()):
        return NotImplemented  # PyTorch says what is wrong
    counts = logits.new_ones(len(labels)) if weight is None else weight.to(logits)[labels]
    counts = counts / counts.sum() if reduction == "mean" else counts
    targets = Targets(labels, counts, label_smoothing)
    if head is not None:
        (inputs, matrix, bias), rows = head
        rows = rows.reshape(-1) if every else rows.reshape(-1)[kept]
        whole = len(rows) == len(inputs) and torch.equal(rows, torch.arange(len(rows), device=rows.device))
        return _Head.apply(inputs if whole else inputs[rows], matrix, bias, targets)
    flat = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    return _Logits.apply(flat if every else flat[kept], targets)


def _losses(z: Float[Tensor, "n V"], targets: Targets, part: slice) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """log sum exp(z), and the loss of each token."""
    total = z.logsumexp(1)
    right, smooth = z.gather(1, targets.labels[part, None])[:, 0], targets.smoothing
    losses = total - (1 - smooth) * right
    return total, losses - smooth * z.mean(1) if smooth else losses


def _slopes(z: Float[Tensor, "n V"], total: Float[Tensor, " n"], targets: Targets, part: slice) -> Float[Tensor, "n V"]:
    """c (p - q), written over z."""
    counts, smooth = targets.counts[part, None], targets.smoothing
    z.sub_(total[:, None]).exp_()
    if smooth:
        z.sub_(smooth / z.shape[1])
    return z.mul_(counts).scatter_add_(1, targets.labels[part, None], (smooth - 1) * counts)


def _bent(p: Tensor, along: Tensor) -> Tensor:
    """p * zdot - p <p, zdot>, written over zdot."""
    return along.sub_(torch.linalg.vecdot(p, along)[:, None]).mul_(p)


class _Logits(Function):
    """sum_t c_t l_t of logits."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, targets: Targets) -> Tensor:
        parts = list(blocks(len(z), z[:1].nbytes))
        total, losses = (torch.cat(found) for found in zip(*(_losses(z[part], targets, part) for part in parts), strict=True))
        ctx.save_for_backward(z, total)
        ctx.targets = targets
        return losses @ targets.counts

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _LogitsSlope.apply(g, *ctx.saved_tensors, ctx.targets), None


class _LogitsSlope(Function):
    """(g, z) -> g c (p - q)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, z: Tensor, total: Tensor, targets: Targets) -> Tensor:
        out = torch.empty_like(z)
        for part in blocks(len(z), z[:1].nbytes):
            out[part] = _slopes(z[part].clone(), total[part], targets, part).mul_(g)
        ctx.save_for_backward(g, z, total)
        ctx.targets = targets
        return out

    @staticmethod
    @last
    def backward(ctx: Any, u: Tensor) -> Any:
        g, z, total = ctx.saved_tensors
        targets = ctx.targets
        to_z, to_g = torch.empty_like(z), torch.zeros_like(g) if ctx.needs_input_grad[0] else None
        for part in blocks(len(z), z[:1].nbytes):
            p = (z[part] - total[part, None]).exp_()
            if to_g is not None:
                to_g += (u[part] * _slopes(z[part].clone(), total[part], targets, part)).sum()
            to_z[part] = _bent(p, u[part].clone()).mul_(g * targets.counts[part, None])
        return to_g, to_z, None, None


class _Head(Function):
    """sum_t c_t l_t of the logits h W^T + b. Its gradient is computed with it, while each block of logits exists."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, targets: Targets) -> Tensor:
        needs_w, needs_b = ctx.needs_input_grad[1], b is not None and ctx.needs_input_grad[2]
        labels, counts, smooth = targets.labels, targets.counts, targets.smoothing
        total, mean, value = torch.empty_like(h[:, 0]), torch.empty_like(h), h.new_zeros(())
        to_w = torch.zeros_like(w) if needs_w else None
        to_b = torch.zeros_like(b) if needs_b and b is not None else None
        for part in blocks(len(h), 1, TOKENS):
            z = F.linear(h[part], w, b)
            total[part], losses = _losses(z, targets, part)
            value += losses @ counts[part]
            p = z.sub_(total[part, None]).exp_()
            torch.mm(p, w, out=mean[part])
            if to_w is not None:
                to_w.addmm_(p.mT, h[part] * counts[part, None])
            if to_b is not None:
                to_b.addmv_(p.mT, counts[part])
        to_h = _above(mean, w, targets).mul_(counts[:, None]) if ctx.needs_input_grad[0] else None
        if to_w is not None:
            to_w.index_add_(0, labels, h * counts[:, None], alpha=smooth - 1)
            if smooth:
                to_w.sub_(smooth / len(w) * (counts @ h))
        if to_b is not None:
            to_b.index_add_(0, labels, counts, alpha=smooth - 1)
            if smooth:
                to_b.sub_(smooth / len(w) * counts.sum())
        ctx.save_for_backward(h, w, b, total, mean, to_h, to_w, to_b)
        ctx.targets = targets
        return value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        h, w, b, total, mean, *slopes = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (*(None if t is None else g * t for t in slopes), None)
        return (*_HeadSlope.apply(g, h, w, b, total, mean, *slopes, ctx.targets), None)


class _HeadSlope(Function):
    """(g, h, W, b) -> g G W, g G^T h and g G^T 1 with G = c (p - q), which `_Head` has computed for g = 1.

    For cotangents (s, S, r) of the three, z moves along zdot = s W^T + h S^T + r. With B = c (p * zdot - p <p, zdot>), h gets
    g (B W + G S), W gets g (B^T h + G^T s), and b gets g B^T 1.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, h: Tensor, w: Tensor, b: Tensor | None, total: Tensor, mean: Tensor, *rest: Any
    ) -> tuple[Tensor | None, ...]:
        *slopes, targets = rest
        ctx.save_for_backward(g, h, w, b, total, mean, *(slopes if ctx.needs_input_grad[0] else ()))
        ctx.targets = targets
        ctx.set_materialize_grads(False)
        return tuple(None if t is None else g * t for t in slopes)

    @staticmethod
    @last
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        g, h, w, b, total, mean, *slopes = ctx.saved_tensors
        to_g, needs = None, ctx.needs_input_grad
        if needs[0]:
            to_g = sum(((u * t).sum() for u, t in zip(cotangents, slopes, strict=True) if u is not None), torch.zeros_like(g))
        targets = ctx.targets._replace(counts=ctx.targets.counts * g)
        return to_g, *_bend(h, w, b, total, mean, targets, cotangents, needs[1:4]), *(None for _ in needs[4:])


def _above(mean: Tensor, matrix: Tensor, targets: Targets) -> Tensor:
    """(p - q) M of every token, where `mean` is p M."""
    smooth = targets.smoothing
    above = torch.sub(mean, matrix[targets.labels], alpha=1 - smooth)
    return above.sub_(matrix.mean(0), alpha=smooth) if smooth else above


def _bend(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    total: Tensor,
    mean: Tensor,
    targets: Targets,
    cotangents: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What h, W and b get in `_HeadSlope`, where `mean` is p W and c has the factor g.

    p and E = p * zdot are the two halves of one block, so that one product gives both logits and s W^T, and one gives all that
    W gets but for its targets: B = c (E - p m), m = <p, zdot> of each row, and B^T h + (c p)^T s = E^T (c h) + p^T c (s - m h).
    """
    s, step, r = cotangents
    labels, counts, smooth = targets.labels, targets.counts[:, None], targets.smoothing
    to_h, to_w = torch.zeros_like(h) if needs[0] else None, torch.zeros_like(w) if needs[1] else None
    to_b = torch.zeros_like(b) if b is not None and needs[2] else None
    stepped = None if step is None else torch.empty_like(h)  # p S
    for part in blocks(len(h), 1, TOKENS):
        x, n, c = h[part], part.stop - part.start, counts[part]
        both = torch.cat((x, torch.zeros_like(x) if s is None else s[part])) @ w.mT
        p, along = both[:n], both[n:]
        p.sub_(total[part, None]) if b is None else p.add_(b).sub_(total[part, None])
        p.exp_()
        if step is not None:
            along.addmm_(x, step.mT)
        if r is not None:
            along += r
        along.mul_(p)
        level = along.sum(1, keepdim=True)
        if stepped is not None and step is not None:
            torch.mm(p, step, out=stepped[part])
        if to_h is not None:
            to_h[part] = (along @ w).addcmul_(mean[part], level, value=-1)
        if to_w is not None:
            moved = x * level.neg() if s is None else torch.addcmul(s[part], x, level, value=-1)
            to_w.addmm_(both.mT, torch.cat((moved, x)).mul_(c.repeat(2, 1)))
        if to_b is not None:
            to_b.addmv_(both.mT, torch.cat((-level, torch.ones_like(level))).mul_(c.repeat(2, 1))[:, 0])
    if to_h is not None:
        if stepped is not None and step is not None:
            to_h += _above(stepped, step, targets)
        to_h *= counts
    if to_w is not None and s is not None:
        to_w.index_add_(0, labels, s * counts, alpha=smooth - 1)
        if smooth:
            to_w.sub_(smooth / len(w) * (targets.counts @ s))
    return to_h, to_w, to_b
