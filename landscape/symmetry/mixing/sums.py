"""Rules for sums, products with numbers and gates, rotary embeddings, and means over positions."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.mixing import normalizations
from landscape.symmetry.mixing.cases.masks import note_closed
from landscape.symmetry.mixing.cases.rotary import rotary
from landscape.symmetry.mixing.channels import Numbers
from landscape.symmetry.mixing.contractions import added_to_scores
from landscape.symmetry.mixing.steps import Step, axis_of, is_learned, lose_scores, rule, written
from landscape.symmetry.mixing.tracked import Mark, Tracked, channel, distinct, labelled, opaque, vector, vector_axis, vectors


@rule("neg", accepts=("turned",))
def negative(step: Step) -> Any:
    """-x is mixed as x is."""
    if isinstance(step.first, Tracked) and step.first.opaque and step.first.learned and step.first.mark is None:
        return replace(step.nothing(), mark=Mark("negated"))
    return times(step, step.tracked(step.first), -1.0)


@rule("add", "sub", "rsub", accepts=("turned", "scores"))
def add(step: Step) -> Any:
    """Both sides are mixed by the same matrix."""
    a, b = step.args["self"], step.args["other"]
    if not isinstance(b, (Tracked, Leaf)):
        return _number_added(step, a, b)
    if step.name == "rsub":
        return step.unread()
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Tracked) and x.mark is not None and x.mark.kind == "scores":
            if isinstance(y, Tracked) and y.mark is not None:
                for mark in (x.mark, y.mark):
                    lose_scores(step, mark)
                return step.nothing()
            if is_learned(y):
                added_to_scores(step, y)
            return replace(step.nothing(), mark=x.mark if x.shape == step.shape else None)
    if not isinstance(step.args.get("alpha", 1), (int, float)):
        return step.unread()
    turned = [v for v in (a, b) if isinstance(v, Tracked) and v.mark is not None and v.mark.kind == "turned"]
    if len(turned) == 2 and step.args.get("alpha", 1) in (1, -1):
        return rotary(step, *turned)
    if turned:
        for value in turned:
            step.store.doubt(distinct(value.codes), f"{step.place} reads channels times fixed numbers")
        return step.nonlinear()
    return _sum(step, a, b)


def _factor(step: Step) -> float:
    """What the second of two summands is multiplied by."""
    return float(step.args.get("alpha", 1)) * (-1.0 if step.name == "sub" else 1.0)


def _number_added(step: Step, a: Any, number: Any) -> Any:
    """A number beside a value: scores stay what they are, and 1 - z sums to one with z."""
    if isinstance(a, Leaf) and a.parameter and number != 0:
        step.store.give_up(f"{step.place} adds a number to {a.name}")
    a = step.tracked(a)
    kind = "" if a.mark is None else a.mark.kind
    if step.name != "rsub" and (kind == "scores" or number == 0):
        return a
    if a.learned and (step.name == "rsub" or kind == "negated"):
        step.store.hide(f"{step.place} makes numbers that may sum to one with others")
    if not a.opaque:
        step.store.doubt(distinct(a.codes), f"{step.place} adds a number")
    return step.nothing()


def _sum(step: Step, a: Any, b: Any) -> Any:
    """Sum of two activations, or of an activation and a parameter."""
    if step.shape.numel() == 1 and is_learned(a) and is_learned(b):
        step.store.hide(f"{step.place} adds two learned numbers")
    left, right = _beside(step, a, b), _beside(step, b, a)
    learned = left.learned or right.learned
    if left.opaque and right.opaque:
        if step.name == "sub" and right.learned and not left.learned:
            step.store.hide(f"{step.place} makes numbers that may sum to one with others")
        return step.nothing(learned)
    x, y = left.codes.expand(step.shape), right.codes.expand(step.shape)
    axes = {axis for codes in (x, y) if (axis := vector_axis(codes)) is not None}
    if left.opaque or right.opaque or len(axes) != 1:
        lone, other = (right, left) if left.opaque else (left, right)
        carried = len(axes) == 1 and lone.shape == step.shape
        if other.opaque and _may_take_up(step, lone, other):
            step.store.doubt(distinct(lone.codes), f"{step.place} adds a value that its weights may take up", linear=carried)
        else:
            why = f"{step.place} joins it to a value that cannot be mixed"
            step.breaks(left, right, reason=why, constants=len(axes) == 1, linear=carried)
        return (
            times(step, replace(lone, mark=None), _factor(step) if left.opaque else 1.0)
            if carried
            else _fixed_from_here(step, left, right)
        )
    axis = axes.pop()
    rows = [c.movedim(axis, -1).reshape(-1, step.shape[axis]) for c in (x, y)]
    own = [channel(r) for r in rows]
    alike = all((o == o[0]).all() for o in own)
    one, two = (o[:1] if alike else o for o in own)
    alone = ((one >= 0) & (two == -1)) | ((two >= 0) & (one == -1))
    for side in (one, two):
        step.store.break_(side[alone], f"{step.place} joins it to a value that cannot be mixed", linear=True)
    each = None if alike else _one_by_one(step, x, y)
    if each is not None:
        return each
    if not alike or alone.any() or (one[0] < 0).any() or (two[0] < 0).any():
        # Rows of different kinds: the left channels go on, and constants are not followed.
        step.store.link(one.reshape(-1), two.reshape(-1))
        step.store.ways.lead(two, one)
        for side in (one, two):
            step.store.lose(side, f"{step.place} adds to rows of different kinds")
        return Tracked(torch.where(x >= 0, x, y), learned)
    total = step.store.fresh(step.shape[axis], step.where)
    step.store.sum(total, (one[0], two[0]), (1.0, _factor(step)))
    return Tracked(vectors(step.shape, total, axis), learned)


def _may_take_up(step: Step, lone: Tracked, other: Tracked) -> bool:
    """Whether channels are linear maps of the value that is added to them, or that is one vector for all of them."""
    calls = np.unique(step.store.call[distinct(lone.codes)]).tolist()
    if any(other.source in step.store.direct.get(call, ()) for call in calls):
        return True
    axis = vector_axis(lone.codes)
    return not other.learned and axis is not None and other.shape.numel() <= lone.shape[axis]


def _fixed_from_here(step: Step, *values: Tracked) -> Any:
    """A result without channels: constants are not followed any further."""
    for value in values:
        step.store.lose(distinct(value.codes), f"{step.place} adds it to another value")
    return step.nothing()


def _beside(step: Step, value: Any, other: Any) -> Tracked:
    """A value as an activation; a parameter writes along the axis of the other side's vectors."""
    if not (isinstance(value, Leaf) and value.parameter):
        return step.tracked(value)
    found = _beside_each(step, value, other) if isinstance(other, Tracked) and not other.opaque and value.shape else None
    if found is not None:
        return found
    axis = vector_axis(other.codes) if isinstance(other, Tracked) else None
    back = -1 if axis is None or not isinstance(other, Tracked) else axis - len(other.shape)
    if step.shape and step.shape[back] > 1 and (-back > len(value.shape) or value.shape[back] == 1):
        known = isinstance(other, Tracked) and not other.opaque
        say = step.store.give_up if known else step.store.hide  # a matrix before it may be undone by a bias too
        say(f"{step.place} adds one learned number to a whole vector")
        return opaque(value.shape)
    return written(step, value, axis=back) if -back <= len(value.shape) else opaque(value.shape)


def _beside_each(step: Step, leaf: Leaf, other: Tracked) -> Tracked | None:
    """A parameter with an element for each channel of vectors along several axes, such as heads; None for any other."""
    codes, elements = other.codes.expand(step.shape), leaf.elements().expand(step.shape).reshape(-1).numpy()
    own, number = channel(codes).reshape(-1), vector(codes).reshape(-1)
    axis = vector_axis(codes)
    rows = None if axis is None else channel(codes.movedim(axis, -1).reshape(-1, codes.shape[axis]))
    if rows is None or (own < 0).any() or (rows == rows[0]).all():
        return None
    kinds = np.unique(own)
    order = np.lexsort((own, number))
    if len(order) % len(kinds) or not (own[order].reshape(-1, len(kinds)) == kinds).all():
        return None
    index = np.unique(elements[order].reshape(-1, len(kinds)), axis=0)
    if len(np.unique(index)) < index.size:
        return None
    total = step.store.fresh(len(kinds), leaf.producer)
    step.store.writes(leaf.name, torch.from_numpy(index), total, constant=True)
    return Tracked((codes >> 32 << 32) + torch.from_numpy(total[np.searchsorted(kinds, channel(codes))]))


def _one_by_one(step: Step, x: torch.Tensor, y: torch.Tensor) -> Tracked | None:
    """The sum of vectors along several axes, if each channel of one meets one channel of the other."""
    own = [channel(codes) for codes in (x, y)]
    pairs = np.unique(np.stack([o.reshape(-1) for o in own], 1), axis=0)
    calls = [np.unique(step.store.call[side]) for side in pairs.T] if (pairs >= 0).all() else []
    if not calls or any(len(call) > 1 for call in calls) or any(len(np.unique(side)) < len(pairs) for side in pairs.T):
        return None
    total = step.store.fresh(len(pairs), step.where)
    step.store.sum(total, (pairs[:, 0].copy(), pairs[:, 1].copy()), (1.0, _factor(step)))
    return Tracked((x >> 32 << 32) + torch.from_numpy(total[np.searchsorted(pairs[:, 0], own[0])]))


@rule("mul", accepts=("scores",))
def multiply(step: Step) -> Any:
    """By a number, or by fixed numbers; a gate breaks every channel, and a parameter is a gain."""
    note_closed(step)
    return _scaled(step, step.args["self"], step.args["other"])


@rule("div", accepts=("scores",))
def divide(step: Step) -> Any:
    """By a number or by a value that is the same along a vector."""
    if step.args.get("rounding_mode") is not None:
        return step.nonlinear()
    b = step.args["other"]
    if isinstance(b, Tracked) and not b.opaque:
        step.breaks(step.args["self"], b)
        return step.nothing()
    return _scaled(step, step.args["self"], b)


def _scaled(step: Step, a: Any, b: Any) -> Any:
    """A value times, or over, another one."""
    if not isinstance(b, (Tracked, Leaf)):
        factor = float(b) if isinstance(b, (int, float)) else math.nan
        return times(step, step.tracked(a), factor if step.name == "mul" else 1 / factor)
    if isinstance(a, Leaf) or (isinstance(a, Tracked) and a.opaque and isinstance(b, Tracked) and not b.opaque):
        a, b = b, a
    if isinstance(a, Leaf):
        return step.unread()
    for x, y in ((a, b), (b, a)):
        if isinstance(y, Tracked) and y.mark is not None and y.mark.kind == "scores":
            if is_learned(x) or y.shape != step.shape or (x.shape.numel() > 1 and x.shape[-1] > 1):
                lose_scores(step, y.mark)
                if isinstance(x, Tracked):
                    step.breaks(x)
                return step.nothing()
            return replace(step.nothing(), mark=y.mark)
    if isinstance(b, Leaf) and b.parameter:
        if b.shape.numel() == 1:
            step.store.lose(distinct(a.codes), f"{step.place} multiplies it by a learned number")
            return Tracked(a.codes.expand(step.shape), True)
        return normalizations.gained(step, a, b) if not a.opaque else step.nothing()
    by, b = b, step.tracked(b)
    if a.opaque:
        return step.nothing()
    if not b.opaque:
        for value in (a, b):
            step.store.doubt(distinct(value.codes), f"{step.place} multiplies two activations")
        return step.nothing()
    return _by_fixed(step, a, by)


def times(step: Step, x: Tracked, factor: float) -> Any:
    """Channels times a number: new ones, mixed by the same matrix; nan for a number that is not known."""
    if x.mark is not None and x.mark.kind == "weights" and factor != 1:
        return replace(x, mark=None)  # they no longer sum to one
    if x.opaque or x.mark is not None:
        return x
    own = channel(x.codes)
    kinds = np.unique(own)
    if kinds[0] < 0 or not math.isfinite(factor) or len(np.unique(step.store.call[kinds])) > 1:
        step.store.lose(own.reshape(-1), f"{step.place} multiplies it by a number")
        return x
    total = step.store.fresh(len(kinds), step.where)
    step.store.sum(total, (kinds,), (factor,))
    step.store.same.update(zip(total.tolist(), kinds.tolist(), strict=True))
    step.store.factor.update(
        (t, factor * step.store.factor.get(c, 1.0)) for t, c in zip(total.tolist(), kinds.tolist(), strict=True)
    )
    numbers = (x.codes >> 32 << 32) + torch.from_numpy(total[np.searchsorted(kinds, own)])
    return Tracked(numbers, x.learned)


def _by_fixed(step: Step, a: Tracked, by: Any) -> Any:
    """Channels times numbers that are no channels: the same for a vector, or one for each channel."""
    b = step.tracked(by)
    codes = a.codes.expand(step.shape)
    label = torch.arange(b.codes.numel()).view(b.shape).expand(step.shape)
    axis = axis_of(codes)
    if b.shape.numel() == 1:
        step.store.lose(distinct(codes), f"{step.place} multiplies it by a computed number")
        return Tracked(codes, a.learned)
    rows = label.movedim(axis, -1)
    if rows.shape[-1] > 1 and bool((rows != rows[..., :1]).any()):
        step.store.fixed.update(distinct(codes).tolist())
        if b.learned:
            step.breaks(a, reason=f"{step.place} multiplies two activations")
            return step.nothing()
        return Tracked(codes, a.learned, Mark("turned", codes, by=by))
    labelled(step.store, codes, label)
    step.store.lose(distinct(codes), f"{step.place} multiplies it by computed numbers")
    return Tracked(codes, a.learned)


@rule("mean", "sum")
def reduction(step: Step) -> Any:
    """Over positions every channel is a sum of its own; over the channels themselves it is a fixed linear map."""
    if isinstance(step.first, Leaf) and step.first.parameter and step.first.shape.numel() > step.shape.numel():
        step.store.give_up(f"{step.place} adds elements of {step.first.name}")
    x = step.tracked(step.first)
    if x.opaque:
        return step.nothing()
    dim = step.args.get("dim")
    dims = [d % len(x.shape) for d in ([dim] if isinstance(dim, int) else list(dim or range(len(x.shape))))]
    axis = vector_axis(x.codes)
    if axis is None or axis in dims:
        step.store.doubt(distinct(x.codes), f"{step.place} adds channels")
        return step.nothing()
    codes = x.codes.movedim(axis, -1)
    own = channel(codes.reshape(-1, codes.shape[-1]))
    return _pooled(step, own, axis, keep=bool(step.args.get("keepdim")), dims=dims, exact=step.name == "mean")


def _pooled(step: Step, own: np.ndarray, axis: int, *, keep: bool, dims: list[int], exact: bool) -> Any:
    """New vectors at the positions that are left."""
    first = own[0]
    if (first < 0).any() or not (own == first).all():
        step.store.link(np.broadcast_to(first, own.shape).reshape(-1), own.reshape(-1))
        step.store.ways.lead(own, first)
        step.store.lose(own.reshape(-1), f"{step.place} adds rows of different kinds")
        if (own < 0).any():
            step.store.break_(own.reshape(-1), f"{step.place} joins it to a value that cannot be mixed")
            return step.nothing()
    total: Numbers = first
    if exact:
        total = step.store.fresh(len(first), step.where)
        step.store.sum(total, (first,), (1.0,))
    else:
        step.store.lose(first, f"{step.place} adds positions")
    return step.result(vectors(step.shape, total, axis if keep else axis - sum(d < axis for d in dims)))
