"""Cross-entropy of many classes, and of the linear layer that gives their logits, with second derivatives in closed form.

With logits z = h W^T + b of a token, p = softmax(z) and the token's target distribution q, the mean loss sum_t c_t l_t has the
derivative G = c (p - q) in z, and G has the derivative c (p * zdot - p <p, zdot>) along zdot. PyTorch builds that of some ten
tensors of the shape of z, tokens by classes. Here, blocks of tokens are recomputed from h, W and log sum exp(z), and no tensor
of that shape is made for a second derivative (one may be kept: see `vocabulary_head`).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last
from landscape.curvature.double_backward.row_blocks import blocks
from landscape.curvature.double_backward.vocabulary_head import Head, Targets, head_loss

# Fewest classes for which this pays: with fewer, what surrounds the loss dominates memory and time.
CLASSES = 1024


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
    keep: bool = False,
) -> Tensor:
    """Mean or sum over targets of -log softmax(logits)[target], classes along dimension 1.

    Targets that are distributions, smoothed labels with class weights, losses of each target and few classes are left to
    PyTorch, as is a batch whose targets are all ignored.

    Args:
        head: the linear layer that gives the logits, and for every target the row of its input; None if unknown.
        keep: the graph of a known layer holds its probabilities, a tensor of the logits' shape.
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
        return head_loss(Head(inputs if whole else inputs[rows], matrix, bias), targets, keep)
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
