"""Attention whose memory grows with the sequence instead of its square, with a second derivative in closed form.

Queries, keys, values, the output and log sum exp of each row of scores are kept. The scores are recomputed in blocks of rows,
each of some queries and all their keys. With S = c q k^T + mask, P = softmax(S), O = P v, the cotangent g of O, and D = <g, O>
of each row, the derivatives are

    dS = P * (g v^T - D), dq = c dS k, dk = c dS^T q, dv = P^T g.

For cotangents s, t, r of dq, dk, dv the scores move along Z = c (s k^T + q t^T). With m = <P, Z> and A = (P * Z) v + P r of
each row, g gets A - m O, v gets (P * (Z - m))^T g, and with

    B = P * ((Z - m) * (g v^T - D) + g r^T - <g, A> + m D)

q gets c (B k + dS t), and k gets c (B^T q + dS^T s). The recomputed softmax follows Dao et al. 2022, arXiv:2205.14135.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from landscape.curvature.double_backward.differentiation_limit import last
from landscape.curvature.double_backward.row_blocks import blocks

# Fewest keys for which the scores are recomputed; with fewer they take little memory. Measured on a CPU, blocks are as fast
# from 256 keys on.
KEYS = 256
# Bytes of a block of scores, some five of which exist at a time: on a CPU they stay in its cache, a GPU needs larger ones.
_BYTES = {"cpu": 4 << 20}
_OTHERWISE = 64 << 20


class Scores(NamedTuple):
    """How scores are made of queries and keys.

    Attributes:
        scale: factor c of q k^T.
        causal: whether a query sees no later key.
        mask: True where a query sees a key, or a number to add; of a shape that broadcasts to (B, H, T, T'); None for none.
            Between passes it is with the saved tensors, not here.
        heads: (key heads, query heads that share each).
    """

    scale: float
    causal: bool
    mask: Tensor | None
    heads: tuple[int, int]


def long_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T scale + mask) v of (B, H, T, D) or (B, T, D) tensors.

    Dropout, a mask that is differentiated, few keys, and shapes that need to be broadcast are left to PyTorch. A query that
    sees no key gets 0, as from PyTorch.
    """
    if query.ndim not in (3, 4) or not query.ndim == key.ndim == value.ndim or key.shape[-2] < KEYS:
        return NotImplemented
    if query.ndim == 3:
        mask = attn_mask if attn_mask is None or attn_mask.ndim < 3 else attn_mask[None]
        if attn_mask is not None and attn_mask.ndim > 3:
            return NotImplemented
        q, k, v = (t[None] for t in (query, key, value))
        result = long_attention(q, k, v, mask, dropout_p, is_causal, scale, enable_gqa)
        return result if result is NotImplemented else result[0]
    shared = query.shape[1] // max(1, key.shape[1]) if enable_gqa else 1
    if (
        dropout_p
        or not len(query) == len(key) == len(value)
        or not key.shape[1] * shared == value.shape[1] * shared == query.shape[1]
        or key.shape[2] != value.shape[2]
        or (attn_mask is not None and (attn_mask.requires_grad or is_causal))
    ):
        return NotImplemented
    c = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    # Networks may write to a mask between layers. A small one is copied; of a larger one autograd refuses the change.
    small = attn_mask is not None and attn_mask.numel() * attn_mask.element_size() <= query.nbytes
    mask = attn_mask.clone() if small and attn_mask is not None else attn_mask
    return _Attention.apply(query, key, value, mask, Scores(c, is_causal, None, (key.shape[1], shared)))


def _parts(q: Tensor, k: Tensor, scores: Scores) -> Iterator[tuple[slice, int]]:
    """Blocks of queries, each with the number of first keys that it sees."""
    keys = k.shape[2]
    for part in blocks(q.shape[2], len(q) * q.shape[1] * keys * q.element_size(), _BYTES.get(q.device.type, _OTHERWISE)):
        yield part, min(part.stop, keys) if scores.causal else keys


def _rows(t: Tensor, part: slice, scores: Scores) -> Tensor:
    """A block of (B, H, T, ...) as (B, key heads, rows of all queries that share a key head, ...)."""
    block = t[:, :, part]
    return block.reshape(len(t), scores.heads[0], -1, *t.shape[3:])


def _back(rows: Tensor, scores: Scores) -> Tensor:
    """The inverse of `_rows`: (B, H, T, ...)."""
    return rows.reshape(len(rows), scores.heads[0] * scores.heads[1], -1, *rows.shape[3:])


def _scores(q: Tensor, k: Tensor, part: slice, scores: Scores) -> Tensor:
    """A block of S, (B, key heads, rows, keys)."""
    found = (_rows(q, part, scores) * scores.scale) @ k.mT
    keys, n = k.shape[2], part.stop - part.start
    grid = found.view(len(q), q.shape[1], n, keys)
    if scores.causal:
        late = torch.ones(n, keys - part.start, dtype=torch.bool, device=q.device).triu(1) if keys > part.start else None
        if late is not None:
            grid[..., part.start :].masked_fill_(late, -math.inf)
    if scores.mask is not None:
        mask = scores.mask
        mask = mask[..., part if mask.ndim > 1 and mask.shape[-2] > 1 else slice(None), :] if mask.ndim > 1 else mask
        grid.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else grid.add_(mask)
    return found


def _weights(q: Tensor, k: Tensor, total: Tensor, part: slice, scores: Scores) -> Tensor:
    """A block of P."""
    return _scores(q, k, part, scores).sub_(_rows(total, part, scores)[..., None]).exp_()


class _Attention(Function):
    """O = softmax(c q k^T + mask) v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scores: Scores) -> Tensor:
        ctx.scores, scores = scores, scores._replace(mask=mask)
        out, total = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3])
        for part, seen in _parts(q, k, scores):
            s = _scores(q, k[:, :, :seen], part, scores)
            level = s.logsumexp(-1)
            level = torch.where(level == -math.inf, 0.0, level)  # a query that sees no key has weights of 0
            total[:, :, part] = _back(level, scores)
            out[:, :, part] = _back(s.sub_(level[..., None]).exp_() @ v[:, :, :seen], scores)
        ctx.save_for_backward(q, k, v, out, total, mask)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        q, k, v, out, total, mask = ctx.saved_tensors
        return (*_AttentionSlope.apply(g, q, k, v, out.detach(), total, mask, ctx.scores), None, None)


class _AttentionSlope(Function):
    """(g, q, k, v) -> dq, dk, dv. Output and log sum exp are functions of q, k, v, and their part is in what those get."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, total: Tensor, mask: Tensor | None, scores: Scores
    ) -> Any:
        ctx.scores, scores = scores, scores._replace(mask=mask)
        to_q, to_k, to_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for part, seen in _parts(q, k, scores):
            keys, p = k[:, :, :seen], _weights(q, k[:, :, :seen], total, part, scores)
            rows = _rows(g, part, scores)
            to_v[:, :, :seen] += p.mT @ rows
            bend = (rows @ v[:, :, :seen].mT).sub_((rows * _rows(out, part, scores)).sum(-1, keepdim=True)).mul_(p)
            to_q[:, :, part] = _back((bend @ keys).mul_(scores.scale), scores)
            to_k[:, :, :seen] += (bend.mT @ _rows(q, part, scores)).mul_(scores.scale)
        ctx.save_for_backward(g, q, k, v, out, total, mask)
        ctx.set_materialize_grads(False)
        return to_q, to_k, to_v

    @staticmethod
    @last
    def backward(ctx: Any, s: Tensor | None, t: Tensor | None, r: Tensor | None) -> Any:
        g, q, k, v, out, total, mask = ctx.saved_tensors
        return (*_bent(g, q, k, v, out, total, ctx.scores._replace(mask=mask), s, t, r), None, None, None, None)


def _bent(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, total: Tensor, scores: Scores,
    s: Tensor | None, t: Tensor | None, r: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """What g, q, k and v get in `_AttentionSlope`."""
    c = scores.scale
    to_g, to_q, to_k, to_v = (torch.zeros_like(x) for x in (g, q, k, v))
    for part, seen in _parts(q, k, scores):
        keys, values = k[:, :, :seen], v[:, :, :seen]
        x, y, o = (_rows(block, part, scores) for block in (q, g, out))
        p = _weights(q, keys, total, part, scores)
        along = torch.zeros_like(p) if s is None else (_rows(s, part, scores) * c) @ keys.mT
        if t is not None:
            along += (x * c) @ t[:, :, :seen].mT
        weighted = p * along
        mean = weighted.sum(-1, keepdim=True)
        moved = weighted @ values  # A
        if r is not None:
            moved += p @ r[:, :, :seen]
        to_g[:, :, part] = _back(moved - mean * o, scores)
        weighted = torch.addcmul(weighted, p, mean, value=-1)  # P (Z - m)
        to_v[:, :, :seen] += weighted.mT @ y
        level = (y * o).sum(-1, keepdim=True)  # D
        slope = (y @ values.mT).sub_(level)
        bend = weighted.mul_(slope)
        rest = -(y * moved).sum(-1, keepdim=True).addcmul_(mean, level, value=-1)
        if r is not None:
            bend += (y @ r[:, :, :seen].mT).add_(rest).mul_(p)
        else:
            bend.addcmul_(p, rest)
        slope.mul_(p)  # dS
        to_x, to_y = bend @ keys, bend.mT @ x
        if t is not None:
            to_x += slope @ t[:, :, :seen]
        if s is not None:
            to_y += slope.mT @ _rows(s, part, scores)
        to_q[:, :, part] = _back(to_x.mul_(c), scores)
        to_k[:, :, :seen] += to_y.mul_(c)
    return to_g, to_q, to_k, to_v
