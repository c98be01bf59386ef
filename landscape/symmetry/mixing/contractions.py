"""Rules for products of two activations: queries with keys, weights with values; as matrix products, einsum or one call."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.mixing.channels import Channels, Numbers, Taken
from landscape.symmetry.mixing.linear_maps import times_weight
from landscape.symmetry.mixing.mixtures import Shift
from landscape.symmetry.mixing.steps import Step, is_learned, lose_scores, rule, taken_by_softmax
from landscape.symmetry.mixing.tracked import Codes, Mark, Tracked, channel, distinct, labelled, vector_axis


@rule("matmul", "mm", "bmm", accepts=("weights",))
def matmul(step: Step) -> Any:
    """A product of activations, or with a weight matrix."""
    left, right = list(step.args.values())[:2]
    return product(step, left, right)


@rule("baddbmm", accepts=("weights",))
def add_product(step: Step) -> Any:
    """beta * c + alpha * a b, where c is fixed."""
    if is_learned(step.args["self"]):
        step.breaks(step.args["batch1"], step.args["batch2"])
        return step.nonlinear()
    return product(step, step.args["batch1"], step.args["batch2"])


def product(step: Step, left: Any, right: Any) -> Any:
    """left (..., M, K) times right (..., K, N)."""
    if isinstance(right, Leaf) and right.parameter and len(right.shape) == 2:
        return times_weight(step, left, right)
    if min(len(left.shape), len(right.shape)) < 2:
        return step.unread()
    if isinstance(left, Leaf) and left.parameter and _columns_lie(right):
        left = step.tracked(left)  # queries that are learned
    if any(isinstance(v, Leaf) and v.parameter for v in (left, right)):
        return step.unread()
    left, right = step.tracked(left), step.tracked(right)
    if left.opaque and right.opaque:
        return step.nothing()
    lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    a, b = (v.codes.expand(*lead, *v.shape[-2:]) for v in (left, right))
    n = len(lead) + 2
    along = [None if v.opaque else vector_axis(c) for v, c in ((left, a), (right, b))]
    if a.shape[-1] == 1 and not left.opaque and not right.opaque and along.count(None):
        along = [n - 1, n - 2]  # vectors of one channel
    if along == [n - 1, n - 2]:
        return _contracted(step, a, b)
    if along == [None, n - 1] and left.opaque:
        return _averaged(step, b, n - 1, by=left, ones=left.mark is not None and left.mark.kind == "weights")
    if along == [n - 2, None] and right.opaque:
        return _averaged(step, a, n - 2, by=right, ones=False)
    for value in (left, right):
        if not value.opaque:
            step.store.doubt(distinct(value.codes), f"{step.place} multiplies it by a value that is no weight")
    return step.nothing()


def _columns_lie(value: Any) -> bool:
    """Whether the vectors of a value are its columns."""
    return isinstance(value, Tracked) and not value.opaque and vector_axis(value.codes) == len(value.shape) - 2


def _contracted(step: Step, a: Codes, b: Codes) -> Any:
    """Vectors times vectors: A on one side is undone by its inverse on the other."""
    batch = _batch(a.shape[:-2])
    rows, cols = a, b.transpose(-1, -2)
    for codes in (rows, cols):
        labelled(step.store, codes[..., :1, :], batch)  # one vector of each matrix; `_pattern` links the others to it
    left, right = _pattern(step, rows), _pattern(step, cols)
    if left is None or right is None:
        return step.unread()
    gained = [c for side in (left, right) for c in np.unique(side).tolist() if c in step.store.gain]
    both = all(c in step.store.gain for side in (left, right) for c in np.unique(side).tolist())
    if gained and {step.store.gain[c][0] for c in gained} <= step.store.even_gains:
        step.store.give_up(f"{step.place} reads gains of which all elements are equal, so that a rotation may pass")
    channels = np.concatenate([left.reshape(-1), right.reshape(-1)])
    if gained and both:
        step.store.break_(channels, f"{step.place} reads it after a gain", constants=True)
    elif gained:
        step.store.give_up(f"{step.place} reads a gain on one side")
        step.store.break_(channels, f"{step.place} reads it after a gain", constants=True)
    step.store.link(left.reshape(-1), right.reshape(-1), dual=True)
    step.store.ways.meet(left, right)
    value: Tracked = step.nothing()
    number = len(step.store.calls) + len(step.store.links)  # links have just grown
    step.store.open_scores[number] = (np.unique(channels), step.place)
    return replace(value, mark=Mark("scores", cols, rows, "" if gained else step.place, number))


def _batch(lead: torch.Size) -> Tensor:
    """The number of each matrix of a batch, (*lead, 1, 1)."""
    return torch.arange(lead.numel()).view(*lead, 1, 1)


def _pattern(step: Step, codes: Codes) -> Numbers | None:
    """(matrices, n) channels along the vectors; those at other positions are linked to them. None if some are no channels."""
    own = channel(codes).reshape(-1, *codes.shape[-2:])
    step.store.apart(own)
    if (own < 0).any():
        step.breaks(Tracked(codes), reason=f"{step.place} joins it to a value that cannot be mixed")
        return None
    first = own[:, :1]
    if not (own == first).all():
        labelled(step.store, codes, _batch(codes.shape[:-1]).squeeze(-1))  # heads that stand in different rows of one matrix
        step.store.link(np.broadcast_to(first, own.shape).reshape(-1), own.reshape(-1))
        step.store.ways.lead(own, first)
        step.store.lose(own.reshape(-1), f"{step.place} reads rows of different kinds")
    return np.asarray(first[:, 0])


def _averaged(step: Step, codes: Codes, axis: int, *, by: Any, ones: bool) -> Any:
    """Sums of vectors over positions, with the weights `by`, other ones for each matrix of the batch."""
    rows = codes if axis == codes.ndim - 1 else codes.transpose(-1, -2)
    labelled(step.store, rows[..., :1, :], _batch(codes.shape[:-2]))
    pattern = _pattern(step, rows)
    if pattern is None:
        return step.nothing()
    if ones:
        distinct = np.unique(pattern)
        total = step.store.fresh(len(distinct), step.where)
        step.store.sum(total, (distinct,), (1.0,))
        step.store.weigh(total, by)
        pattern = total[np.searchsorted(distinct, pattern)]
    else:
        step.store.lose(pattern.reshape(-1), f"{step.place} reads it with weights that may sum to one")
    shape = step.shape if axis == codes.ndim - 1 else torch.Size([*step.shape[:-2], step.shape[-1], step.shape[-2]])
    number = torch.arange(shape[:-1].numel()).view(*shape[:-1], 1) << 32
    out = number + torch.from_numpy(pattern).view(*codes.shape[:-2], 1, -1)
    return step.result(out if axis == codes.ndim - 1 else out.transpose(-1, -2))


def added_to_scores(step: Step, value: Any) -> None:
    """Something learned is added to scores, of which the softmax ignores what is the same for all keys."""
    if isinstance(value, Leaf):
        if value.parameter:
            step.store.score_biases.append(value)
        return
    if value.opaque:
        return
    own = channel(value.codes)
    if value.shape[-1] > 1 and not (own == own[..., :1]).all():
        step.store.doubt(own.reshape(-1), f"{step.place} adds it to scores, of which the softmax may ignore a part")
        return
    step.breaks(value, constants=True)
    step.store.taken.append(Taken(distinct(value.codes), "softmax"))


def score_shifts_of(store: Channels) -> tuple[Shift, ...]:
    """Constants in parameters that are added to scores: one for each set of queries that share elements."""
    found = []
    for leaf in store.score_biases:
        if leaf.name in store.held or not leaf.shape:
            continue
        if leaf.name in store.shared:
            store.give_up(f"constants in {leaf.name}, which is added to scores and used in other places")
            continue
        rows = leaf.elements().reshape(-1, leaf.shape[-1])
        of_row = torch.arange(len(rows))[:, None].expand(rows.shape).reshape(-1)
        n = len(rows)
        edges = (of_row.numpy(), rows.reshape(-1).numpy() + n)
        size = n + int(rows.max()) + 1
        _, label = connected_components(coo_matrix((np.ones(len(edges[0])), edges), shape=(size, size)), directed=False)
        by_size: dict[int, list[Tensor]] = {}
        for one in np.unique(label[:n]):
            members = torch.from_numpy(np.flatnonzero(label[n:] == one))
            by_size.setdefault(len(members), []).append(members)
        for own in by_size.values():
            found.append(Shift(f"{leaf.name}: what a softmax over keys ignores", {leaf.name: torch.stack(own)}, uniform=True))
    return tuple(found)


@rule("scaled_dot_product_attention")
def attention(step: Step) -> Any:
    """softmax(Q K^T) V; with grouped queries several heads share keys and values."""
    q, k, v = (step.tracked(step.args[name]) for name in ("query", "key", "value"))
    mask = step.args["attn_mask"]
    if is_learned(mask):
        added_to_scores(step, mask)
    heads = q.shape[-3] if len(q.shape) > 2 else 1
    keys, values = (_repeated(x.codes, heads) for x in (k, v))
    scores = product(_like(step, (*q.shape[:-1], k.shape[-2])), q, Tracked(keys.transpose(-1, -2), k.learned))
    if isinstance(scores, Tracked) and scores.mark is not None:
        taken_by_softmax(step, scores.mark)
    if v.opaque:
        return step.nothing()
    if vector_axis(values) != values.ndim - 1:
        step.breaks(v)
        return step.nothing()
    return _averaged(step, values, values.ndim - 1, by=scores, ones=True)


def _like(step: Step, shape: tuple[int, ...]) -> Step:
    """The same call with another shape of its result."""
    return replace(step, shapes=[torch.Size(shape)])


def _repeated(codes: Codes, heads: int) -> Codes:
    """Keys or values, once for each head that uses them."""
    if codes.ndim < 3 or codes.shape[-3] in (heads, 1):
        return codes
    return codes.repeat_interleave(heads // codes.shape[-3], dim=-3)


@rule("einsum", accepts=("weights",))
def einsum(step: Step) -> Any:
    """Two operands as a batch of matrix products."""
    operands = step.args["tensors"]
    names, out = _spelled(step.args["equation"], [len(v.shape) for v in operands])
    if not out or len(operands) != 2 or any(len(set(n)) < len(n) for n in names):
        return step.unread()
    left, right = operands
    one, two = names
    if any(left.shape[one.index(c)] != right.shape[two.index(c)] for c in one if c in two):
        return step.unread()
    size = dict(zip(one, left.shape, strict=True)) | dict(zip(two, right.shape, strict=True))
    summed = [c for c in size if c not in out]
    if any(c not in one or c not in two for c in summed):
        return step.unread()
    if isinstance(left, Leaf) and not isinstance(right, Leaf):
        (left, right), (one, two) = (right, left), (two, one)
    batch = [c for c in out if c in one and c in two]
    rows, cols = ([c for c in out if c in own and c not in batch] for own in (one, two))
    a = _arranged(left, one, [batch, rows, summed], size)
    b = _arranged(right, two, [batch, summed, cols], size)
    if isinstance(b, Leaf) and batch:
        return step.unread()
    if isinstance(b, Leaf):
        b = Leaf(b.name, b.shape[1:], b.parameter, b.elements()[0])
    shape = [int(np.prod([size[c] for c in group], dtype=np.int64)) for group in (batch, rows, cols)]
    found = product(_like(step, tuple(shape)), a, b)
    if not isinstance(found, Tracked):
        return found
    order = [*batch, *rows, *cols]
    codes = found.codes.reshape([size[c] for c in order]).permute([order.index(c) for c in out])
    return Tracked(codes, found.learned, _rearranged(step, found.mark, out, rows, cols))


def _spelled(equation: str, axes: list[int]) -> tuple[list[str], str]:
    """The names of the axes of each operand and of the result, those of an ellipsis spelled out."""
    terms, _, out = equation.replace(" ", "").partition("->")
    names = terms.split(",")
    free = "".join(c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation)
    hidden = [n - len(term.replace("...", "")) if "..." in term else 0 for term, n in zip(names, axes, strict=True)]
    spelled = [term.replace("...", free[len(free) - n :]) for term, n in zip(names, hidden, strict=True)]
    return spelled, out.replace("...", free[len(free) - max(hidden) :])


def _rearranged(step: Step, mark: Mark | None, out: str, rows: list[str], cols: list[str]) -> Mark | None:
    """The mark of scores whose axes an einsum orders; None, and noted, where keys or queries are on no axis of their own."""
    if mark is None or (len(cols) == 1 and out[-1] == cols[0]):
        return mark
    if len(rows) == 1 and out[-1] == rows[0]:
        return mark.swapped()
    lose_scores(step, mark)
    return None


def _arranged(value: Any, names: str, groups: list[list[str]], size: dict[str, int]) -> Any:
    """A value with its axes joined to three: batch, rows and columns."""
    order = [names.index(c) for group in groups for c in group]
    shape = [int(np.prod([size[c] for c in group], dtype=np.int64)) for group in groups]
    if isinstance(value, Leaf):
        index = value.elements().permute(order).reshape(shape)
        return Leaf(value.name, index.shape, value.parameter, index)
    return Tracked(value.codes.permute(order).reshape(shape), value.learned, value.mark)
