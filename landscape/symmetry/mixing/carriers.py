"""Rules for operations that carry channels on as they are: copies, moves, padding, pooling; and for those that end them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from landscape.symmetry.graph_calls import Leaf, values_in
from landscape.symmetry.mixing.channels import Taken
from landscape.symmetry.mixing.steps import (
    Step,
    axis_of,
    ends_in_kept,
    is_learned,
    lose_all,
    rule,
    taken_by_softmax,
    written,
)
from landscape.symmetry.mixing.tracked import ZERO, Mark, Tracked, channel, columns, distinct, opaque, vector_axis, vectors
from landscape.symmetry.operation_kinds import AVERAGES, INERT, MAXIMA, RECTIFYING, SHAPE_ONLY
from landscape.symmetry.weightless_rules import MOVES

_CARRIED = ("scores", "weights", "turned")


@rule("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as", "positive", accepts=_CARRIED)
def identity(step: Step) -> Any:
    """A copy; a copy of a parameter is still that parameter."""
    dtype = step.args.get("dtype")
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
        return step.nonlinear()
    return step.first


@rule("dropout", "alpha_dropout", "feature_dropout", "native_dropout", accepts=_CARRIED)
def only_in_training(step: Step) -> Any:
    """Nothing in eval mode."""
    return step.nonlinear() if step.args.get("train", step.args.get("training")) else step.tracked(step.first)


@rule(*MOVES, "expand_copy", "index_select", accepts=("scores", "weights"))
def move(step: Step) -> Any:
    """Every result element is some element of an input."""
    named = {n: arg for n, arg in step.args.items() if any(isinstance(v, (Tracked, Leaf)) for v in values_in(arg))}
    values = [v for arg in named.values() for v in values_in(arg) if isinstance(v, (Tracked, Leaf))]
    if not values:
        return step.nothing(learned=False)
    if not named.keys() <= {"self", "input", "tensors", "src", "other"} or "dtype" in step.args:
        return step.unread()
    only = values[0]
    if len(values) == 1 and isinstance(only, Leaf):
        moved = _moved(step, {n: only.elements() for n in named})
        views = [Leaf(only.name, m.shape, only.parameter, m) for m in values_in(moved)]
        return views if isinstance(moved, (list, tuple)) else views[0]
    learned = any(is_learned(v) for v in values)
    if all(isinstance(v, Tracked) and v.opaque for v in values):
        carried = _carried(step, only) if len(values) == 1 and isinstance(only, Tracked) else None
        lose_all(step, values if carried is None else [])
        parts = ("slice", "select", "narrow", "index_select", "split", "split_with_sizes", "chunk", "unbind")
        origin = only.source if len(values) == 1 and isinstance(only, Tracked) and step.name not in parts else None
        results = [replace(opaque(shape, learned, carried), origin=origin) for shape in step.shapes]
        return results if isinstance(step.op, torch._ops.OpOverload) and _many(step.op) else results[0]
    lose_all(step, values)
    codes = {n: [_codes(step, v, values) for v in arg] if isinstance(arg, (list, tuple)) else _codes(step, arg, values)
             for n, arg in named.items()}  # fmt: skip
    moved = _moved(step, codes)
    return [Tracked(m, learned) for m in moved] if isinstance(moved, (list, tuple)) else Tracked(moved, learned)


def _carried(step: Step, x: Tracked) -> Mark | None:
    """The mark of scores, or of their softmax, that are moved: it holds while their last axis stays where it is."""
    if x.mark is None or x.mark.kind == "turned" or len(step.shapes) != 1:
        return None
    name = next(n for n, arg in step.args.items() if arg is x)

    def along(axis: int) -> Tensor:
        shape = [1] * len(x.shape)
        shape[axis] = x.shape[axis]
        moved = _moved(step, {name: torch.arange(x.shape[axis]).view(shape).expand(x.shape)})
        return moved[0] if isinstance(moved, (list, tuple)) else moved

    if len(x.shape) < 2 or len(step.shape) < 2:
        return None
    last, before = along(-1), along(-2)
    ends = [torch.arange(step.shape[d]).view(-1, *([1] * (-1 - d))).expand(step.shape) for d in (-1, -2)]
    if last.shape == step.shape and step.shape[-1] == x.shape[-1] and bool((last == ends[0]).all()):
        return x.mark
    swapped = step.shape[-2:] == (x.shape[-1], x.shape[-2])
    if swapped and bool((last == ends[1]).all()) and bool((before == ends[0]).all()) and x.mark.kind == "scores":
        return x.mark.swapped()
    return None


def _many(op: torch._ops.OpOverload) -> bool:
    """Whether an operation returns a list."""
    return any("[]" in str(result.type) or "List" in str(result.type) for result in op._schema.returns)


def _codes(step: Step, value: Any, among: list[Any]) -> Tensor:
    """Codes of a value; a parameter writes along the axis of the vectors that it is joined to."""
    if isinstance(value, Leaf) and value.parameter:
        beside = [v for v in among if isinstance(v, Tracked) and len(v.shape) == len(value.shape)]
        axis = next((a for v in beside if (a := vector_axis(v.codes)) is not None), -1)
        codes = written(step, value, axis=axis).codes
        rows = [channel(v.codes.movedim(axis, -1).reshape(-1, v.shape[axis])) for v in beside]
        if any((own != own[0]).any() for own in rows):
            step.store.doubt(distinct(codes), f"{step.place} joins {value.name} to vectors along several axes")
        return codes
    return step.tracked(value).codes


def _moved(step: Step, tensors: dict[str, Any]) -> Any:
    """Apply the operation itself; a view of an expanded tensor may need a copy."""
    if step.name in {"view", "_unsafe_view", "view_as"}:
        return next(iter(tensors.values())).reshape(step.shape)
    return step.op(**(step.args | tensors))


@rule("index")
def index(step: Step) -> Any:
    """Positions chosen by index tensors: the same channels, if those are not chosen among."""
    x, chosen = step.args["self"], step.args["indices"]
    if isinstance(x, Leaf) and x.parameter:
        return _looked_up(step, x, chosen)
    if not isinstance(x, Tracked) or any(is_learned(i) for i in chosen):
        return step.unread()
    if x.opaque:
        return step.nothing()
    last = len(x.shape) - 1
    own = channel(x.codes.reshape(-1, x.shape[-1]))
    if vector_axis(x.codes) != last or len(chosen) > last or not (own == own[0]).all():
        return step.unread()
    return Tracked(vectors(step.shape, own[0]), x.learned)


def _looked_up(step: Step, table: Leaf, chosen: list[Any]) -> Any:
    """Rows or columns of a matrix at fixed positions: a table, as of relative positions; each of the others is a channel."""
    given = [axis for axis, i in enumerate(chosen) if i is not None]
    if len(table.shape) != 2 or len(given) != 1 or is_learned(chosen[given[0]]):
        return step.unread()
    other = 1 - given[0]
    own = step.store.fresh(table.shape[other], table.producer)
    step.store.writes(table.name, table.elements().movedim(other, -1), own, constant=True)
    return Tracked(vectors(step.shape, own, -1 if other else 0))


@rule("constant_pad_nd", "pad")
def pad(step: Step) -> Any:
    """Zeros may be mixed with anything; other constants are no channels."""
    x = step.tracked(step.first)
    mode = step.args.get("mode", "constant")
    if x.opaque or mode != "constant":
        return step.nothing() if x.opaque else step.unread()
    name = next(iter(step.args))
    value = step.args.get("value")
    fill = float(ZERO if not value else -1)
    args = {**step.args, name: (x.codes + 0).double(), "value": fill}
    return Tracked(step.op(**args).long(), x.learned)


@rule("pow")
def power(step: Step) -> Any:
    """The sum of squares of channels may stay as it is when they are rotated; no other power does."""
    if step.args.get("exponent") == 2:
        for value in step.values():
            if isinstance(value, Tracked) and not value.opaque:
                step.store.doubt(distinct(value.codes), f"{step.place} reads its square")
        return step.nothing() if step.varies else step.nonlinear()
    return step.nonlinear()


@rule("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax", accepts=("scores",))
def softmax(step: Step) -> Any:
    """It ignores what all scores of a query have in common, such as a constant in all keys."""
    x = step.first
    if not isinstance(x, Tracked):
        return step.unread()
    axis = step.args["dim"] % max(len(x.shape), 1)
    last = axis == len(x.shape) - 1
    if not x.opaque:
        step.breaks(x, constants=True)
        own = channel(x.codes.movedim(axis, -1))
        found = columns(step.store, x.codes.movedim(axis, -1), step.place) if x.shape[axis] > 1 else []
        if len(found) == 1 and len(found[0].at) == x.shape[axis] and vector_axis(x.codes) == axis:
            step.store.taken.append(Taken(found[0].channels, "classes"))
        elif (own == own[..., :1]).all():  # over positions, all of one channel
            step.store.taken.append(Taken(distinct(x.codes), "softmax"))
        else:
            step.store.doubt(distinct(x.codes), f"{step.place} ignores a constant")
    elif x.mark is not None and last:
        taken_by_softmax(step, x.mark)
    elif x.mark is not None and axis == len(x.shape) - 2:
        taken_by_softmax(step, x.mark.swapped())
    elif x.mark is not None:
        ends_in_kept(step, x.mark)
    value: Tracked = step.nothing()
    return replace(value, mark=Mark("weights")) if last and "log" not in step.name else value


@rule(*INERT, *RECTIFYING, "glu")
def activation(step: Step) -> Any:
    """Nothing but a factor passes."""
    return step.nonlinear()


@rule(*SHAPE_ONLY)
def of_the_shape(step: Step) -> Any:
    """A value that depends on the shape of the input alone."""
    return step.nothing(learned=False)


@rule(*AVERAGES)
def average(step: Step) -> Any:
    """The same channels; constants are not followed, because of padding."""
    return _pooled(step, constants=False)


@rule(*MAXIMA)
def maximum(step: Step) -> Any:
    """A constant passes, a matrix does not."""
    step.breaks(step.first, constants=True)
    return _pooled(step, constants=True)


def _pooled(step: Step, *, constants: bool) -> Any:
    """The same channels, in new vectors."""
    if isinstance(step.first, Leaf) and step.first.parameter and step.first.shape.numel() > step.shape.numel():
        step.store.give_up(f"{step.place} joins elements of {step.first.name}")
    x = step.tracked(step.first)
    if x.opaque:
        return step.nothing()
    axis = axis_of(x.codes)
    codes = x.codes.movedim(axis, -1)
    found = columns(step.store, codes, step.place)
    own = channel(codes.reshape(-1, codes.shape[-1]))[0]
    if len(found) != 1 or (own < 0).any() or len(step.shape) != len(x.shape):
        return step.unread()
    if not constants:
        step.store.lose(own, f"{step.place} takes its mean, perhaps with zeros around it")
    return step.result(vectors(step.shape, own, axis))
