"""Masks: over scores, over some channels, and over whole vectors."""

from dataclasses import replace
from typing import Any

import torch

from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.mixing.cases.fixed_values import value_of
from landscape.symmetry.mixing.steps import Step, axis_of, is_learned, lose_all, rule, written
from landscape.symmetry.mixing.tracked import Tracked, channel, distinct, labelled, vector_axis, vectors

_HIDES = -1e4  # scores below it have no weight in a softmax


@rule("masked_fill", "where", accepts=("scores",))
def masked(step: Step) -> Any:
    """A mask over scores keeps what they have in common."""
    scores = [v for v in step.values() if isinstance(v, Tracked) and v.mark is not None]
    others = [v for v in step.values() if v not in scores]
    if len(scores) == 1 and not any(is_learned(v) for v in others) and scores[0].shape == step.shape:
        return replace(step.nothing(), mark=scores[0].mark)
    lose_all(step, scores)
    chosen = None if scores else _chosen(step)
    if chosen is not None:
        return chosen
    whole = [v for v in others if isinstance(v, Tracked) and not v.opaque]
    if len(whole) == 1 and not scores and sum(is_learned(v) for v in others) == 1:
        # What is left of a channel keeps its constant, which the softmax behind a mask by a large negative number ignores.
        step.breaks(whole[0], constants=True)
        hidden = [v for v in step.args.values() if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if not hidden or max(hidden) > _HIDES:
            step.store.lose(distinct(whole[0].codes), f"{step.place} replaces a part of it")
        return Tracked(whole[0].codes.expand(step.shape))
    return step.nonlinear()


def _chosen(step: Step) -> Tracked | None:
    """By a mask that is the same along each vector: 0, or another one, in the place of some. None for a nonlinearity."""
    mask = step.args.get("condition", step.args.get("mask"))
    sides = [step.args[name] for name in ("self", "other", "value") if name in step.args]
    whole = [v for v in sides if isinstance(v, Tracked) and not v.opaque]
    axis = vector_axis(whole[0].codes.expand(step.shape)) if whole and len(sides) == 2 else None
    if axis is None or not isinstance(mask, (Tracked, Leaf)):
        return None
    back, reason = axis - len(step.shape), f"{step.place} chooses among vectors"
    along = len(mask.shape) >= -back and mask.shape[back] > 1
    other: Any = next((v for v in sides if v is not whole[0]), whole[0])
    number = isinstance(other, (int, float))
    if (along and is_learned(mask)) or (number and other <= _HIDES):
        return None
    if isinstance(other, Leaf) and other.parameter and len(other.shape) >= -back and other.shape[back] == step.shape[axis]:
        other = written(step, other, axis=back)
    unmixed = isinstance(other, Tracked) and other.opaque and other.learned
    if not along and (unmixed or (number and other == 0)):
        codes = whole[0].codes.expand(step.shape)
        if unmixed:
            step.breaks(whole[0], reason=f"{step.place} joins it to a value that cannot be mixed", constants=True, linear=True)
        labelled(step.store, codes, torch.arange(mask.shape.numel()).view(mask.shape).expand(step.shape))
        step.store.lose(distinct(codes), reason)
        return Tracked(codes)
    both = [v.codes.expand(step.shape) for v in (whole[0], other) if isinstance(v, Tracked) and not v.opaque]
    rows = [channel(codes.movedim(axis, -1).reshape(-1, step.shape[axis])) for codes in both]
    for own in rows:
        step.store.lose(own, reason)
    if not along and len(rows) == 2 and all((own == own[0]).all() and (own >= 0).all() for own in rows):
        total = step.store.fresh(step.shape[axis], step.where)
        step.store.sum(total, (rows[0][0], rows[1][0]), (1.0, 1.0), chosen=True)
        return Tracked(vectors(step.shape, total, axis))
    for own in rows:
        step.store.doubt(own, reason)
    if is_learned(other) and len(rows) < 2:
        step.store.give_up(reason)
    nothing: Tracked = step.nothing()
    return nothing


def note_closed(step: Step) -> None:
    """Channels times a fixed 0 reach nothing behind them, so that the weights that write and read them are free: said."""
    sides = [step.args["self"], step.args["other"]]
    for mask, x in (sides, sides[::-1]):
        fixed = not mask.parameter if isinstance(mask, Leaf) else isinstance(mask, Tracked) and mask.given and not mask.learned
        if not fixed or not isinstance(x, Tracked) or x.given:
            continue
        back = len(x.shape) - (len(x.shape) - 1 if x.opaque else axis_of(x.codes))  # the axis of channels, counted from behind
        found = value_of(mask, step.store.made, step.store.tensors)
        if found is None or found.ndim < back or found.shape[-back] < 2:
            continue
        rest = [axis for axis in range(found.ndim) if axis != found.ndim - back]
        if bool((found == 0).all(dim=rest).any() if rest else (found == 0).any()):
            step.store.give_up(f"{step.place} multiplies some channels by 0")
