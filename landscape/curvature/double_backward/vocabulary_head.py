"""Cross-entropy of many classes together with the linear layer that gives their logits: second derivatives in closed form.

The gradient of sum_t c_t l_t in the logits z = h W^T + b is G = c (p - q): h gets G W, W gets G^T h, and b gets G^T 1. Along
cotangents (s, S, r) of these three, z moves by zdot = s W^T + h S^T + r, and with m = <p, zdot> = <s, p W> + <h, p S> + <p, r>
of each token and B = c p * (zdot - m), h gets B W + G S, W gets B^T h + G^T s, and b gets B^T 1. As m needs no zdot, a block of
some classes is made, used and forgotten, and six matrix products of tokens, width and classes give all of it; a seventh
recomputes p where it was not kept.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last
from landscape.curvature.double_backward.row_blocks import blocks

# Tokens whose probabilities are recomputed at a time. Each block's part of the derivative is added to that of the whole weight
# matrix, which with fewer tokens takes as long as the products.
TOKENS = 512
# Bytes of a block of classes of these tokens: on a CPU it stays in its cache, a GPU needs larger ones.
_BYTES = {"cpu": 4 << 20}
_OTHERWISE = 64 << 20


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


def head_loss(head: Head, targets: Targets, keep: bool) -> Tensor:
    """sum_t c_t l_t of the head's logits.

    Args:
        keep: from its first product on the graph holds the probabilities, a tensor of classes by tokens; otherwise every
            product recomputes them.
    """
    return _Head.apply(*head, targets, keep)


def _classes(like: Float[Tensor, "V n"]) -> Iterator[slice]:
    """Blocks of classes of a matrix."""
    return blocks(len(like), like[:1].nbytes, _BYTES.get(like.device.type, _OTHERWISE))


def _probabilities(head: Head, total: Float[Tensor, " n"] | None, out: Float[Tensor, "V n"]) -> Float[Tensor, " n"]:
    """log sum exp(z), which may be known, of some tokens; p is written to `out`."""
    x, w, b = head
    levels = []
    for part in _classes(out):
        z = torch.mm(w[part], x.mT, out=out[part])
        if b is not None:
            z += b[part, None]
        if total is None:
            levels.append(z.logsumexp(0))
        else:
            z.sub_(total).exp_()
    if total is None:
        total = torch.stack(levels).logsumexp(0)
        for part in _classes(out):
            out[part].sub_(total).exp_()
    return total


def _first(room: Float[Tensor, "V N"], tokens: int) -> Float[Tensor, "V n"]:
    """The beginning of this memory, as that of the probabilities of so many tokens."""
    return room.view(-1)[: len(room) * tokens].view(len(room), tokens)


class _Head(Function):
    """sum_t c_t l_t of the logits h W^T + b. Its gradient is computed with it, while each block of probabilities exists."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, targets: Targets, keep: bool) -> Tensor:
        needs_w, needs_b = ctx.needs_input_grad[1], b is not None and ctx.needs_input_grad[2]
        labels, counts, smooth = targets.labels, targets.counts, targets.smoothing
        total, mean = torch.empty_like(h[:, 0]), torch.empty_like(h)
        to_w = torch.empty_like(w) if needs_w else None
        to_b = torch.zeros_like(b) if needs_b and b is not None else None
        tokens = min(TOKENS, len(h))
        room = h.new_empty(len(w), tokens)
        for part in blocks(len(h), 1, tokens):
            x, p = h[part], _first(room, part.stop - part.start)
            total[part] = _probabilities(Head(x, w, b), None, p)
            torch.mm(p.mT, w, out=mean[part])
            if to_w is not None:
                to_w.addmm_(p, x * counts[part, None], beta=float(part.start > 0))
            if to_b is not None:
                to_b.addmv_(p, counts[part])
        right = torch.linalg.vecdot(h, w[labels])
        losses = total - (1 - smooth) * (right if b is None else right + b[labels])
        if smooth:
            losses -= smooth * (h @ w.mean(0) + (0 if b is None else b.mean()))
        value = losses @ counts
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
        ctx.targets, ctx.keep = targets, keep
        return value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        h, w, b, total, mean, *slopes = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (*(None if t is None else g * t for t in slopes), None, None)
        return (*_HeadSlope.apply(g, h, w, b, total, mean, *slopes, ctx.targets, ctx.keep), None, None)


class _HeadSlope(Function):
    """(g, h, W, b) -> g G W, g G^T h and g G^T 1, which `_Head` has computed for g = 1."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, h: Tensor, w: Tensor, b: Tensor | None, total: Tensor, mean: Tensor, *rest: Any
    ) -> tuple[Tensor | None, ...]:
        *slopes, targets, keep = rest
        ctx.save_for_backward(g, h, w, b, total, mean, *(slopes if ctx.needs_input_grad[0] else ()))
        ctx.targets, ctx.keep, ctx.kept = targets, keep, None
        ctx.set_materialize_grads(False)
        return tuple(None if t is None else g * t for t in slopes)

    @staticmethod
    @last
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        g, h, w, b, total, mean, *slopes = ctx.saved_tensors
        if ctx.keep and ctx.kept is None:  # not in the first pass, while the network's logits are alive
            ctx.kept = h.new_empty(len(w), len(h))
            _probabilities(Head(h, w, b), total, ctx.kept)
        to_g, needs = None, ctx.needs_input_grad
        if needs[0]:
            to_g = sum(((u * t).sum() for u, t in zip(cotangents, slopes, strict=True) if u is not None), torch.zeros_like(g))
        targets = ctx.targets._replace(counts=ctx.targets.counts * g)
        return to_g, *_bend(Head(h, w, b), total, mean, ctx.kept, targets, cotangents, needs[1:4]), *(None for _ in needs[4:])


def _above(mean: Tensor, matrix: Tensor, targets: Targets) -> Tensor:
    """(p - q) M of every token, where `mean` is p M."""
    smooth = targets.smoothing
    above = torch.sub(mean, matrix[targets.labels], alpha=1 - smooth)
    return above.sub_(matrix.mean(0), alpha=smooth) if smooth else above


def _bend(
    head: Head,
    total: Tensor,
    mean: Tensor,
    kept: Float[Tensor, "V N"] | None,
    targets: Targets,
    cotangents: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What h, W and b get in `_HeadSlope`, where `mean` is p W, `kept` is p if it was kept, and c has the factor g."""
    (h, w, b), (s, step, r) = head, cotangents
    labels, counts, smooth = targets.labels, targets.counts[:, None], targets.smoothing
    to_h, to_w = torch.zeros_like(h) if needs[0] else None, torch.empty_like(w) if needs[1] else None
    to_b = torch.zeros_like(b) if b is not None and needs[2] else None
    stepped = None if step is None else torch.empty_like(h)  # p S
    tokens = min(TOKENS, len(h)) if kept is None else len(h)
    room = h.new_empty(len(w), tokens) if kept is None else kept
    for part in blocks(len(h), 1, tokens):
        x, c, shift = h[part], counts[part], None if s is None else s[part]
        n, level, fresh = len(x), total.new_zeros(len(x)), part.start == 0
        p = _first(room, n)
        if kept is None:
            _probabilities(Head(x, w, b), total[part], p)
        if shift is not None:
            level += torch.linalg.vecdot(shift, mean[part])
        if stepped is not None and step is not None:
            level += torch.linalg.vecdot(x, torch.mm(p.mT, step, out=stepped[part]))
        if r is not None:
            level += r @ p
        for some in _classes(p):
            along = p.new_zeros(some.stop - some.start, n) if step is None else step[some] @ x.mT
            if shift is not None:
                along.addmm_(w[some], shift.mT)
            if r is not None:
                along += r[some, None]
            along.sub_(level).mul_(p[some])
            if to_h is not None:
                to_h[part].addmm_(along.mT, w[some])
            if to_w is not None:
                to_w[some].addmm_(along, x * c, beta=0.0 if fresh else 1.0)
                if shift is not None:
                    to_w[some].addmm_(p[some], shift * c)
            if to_b is not None:
                to_b[some].addmv_(along, c[:, 0])
    if to_h is not None:
        if stepped is not None and step is not None:
            to_h += _above(stepped, step, targets)
        to_h *= counts
    if to_w is not None and s is not None:
        to_w.index_add_(0, labels, s * counts, alpha=smooth - 1)
        if smooth:
            to_w.sub_(smooth / len(w) * (targets.counts @ s))
    return to_h, to_w, to_b
