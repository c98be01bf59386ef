"""Rules for normalizations, maxima and comparisons: what they ignore, and the rotations that they let through."""

from typing import Any

from torch import Tensor

from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.mixing.channels import Numbers, Taken
from landscape.symmetry.mixing.mixtures import BatchNormMean
from landscape.symmetry.mixing.steps import Step, axis_of, is_learned, rule
from landscape.symmetry.mixing.tracked import Tracked, channel, columns, distinct, vectors
from landscape.symmetry.operation_kinds import COMPARISONS


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def normalization(step: Step) -> Any:
    """x over its spread along the last axis, times a gain, plus a shift."""
    lengths = step.args["normalized_shape"]
    weight, bias = step.args.get("weight"), step.args.get("bias")
    x = step.tracked(step.first)
    if len(lengths) != 1:
        return _spread_of_many(step)
    return step.result(_normed(step, x, centred="layer" in step.name, gain=weight, shift=bias))


def _normed(step: Step, x: Tracked, *, centred: bool, gain: Any, shift: Any) -> Tensor:
    """Codes of the normalized value: new channels, which turn with those of the input."""
    store = step.store
    out = store.fresh(x.shape[-1], step.where)
    store.normal.update(out.tolist())
    found = columns(store, x.codes, step.place)
    if len(found) == 1 and len(found[0].at) == x.shape[-1]:
        own = found[0].channels
        for c in own.tolist():
            store.normed[c] = max(store.normed[c], 2 if centred else 1)
        if centred:
            store.taken.append(Taken(own, "layer norm"))
        else:
            store.fixed.update(distinct(x.codes).tolist())
        store.link(own, out)
    else:
        step.breaks(x)
        store.stiffen(out)
    _gain(step, out, gain)
    learned = isinstance(shift, Leaf) and shift.parameter
    if centred and (learned or shift is None):
        store.centred[tuple(out.tolist())] = shift
    step.adds(shift, out)
    return vectors(step.shape, out)


def _gain(step: Step, out: Numbers, gain: Any) -> None:
    """Note the gain of each normalized channel."""
    if isinstance(gain, Leaf) and gain.parameter and gain.shape.numel() == len(out):
        step.store.gain.update(zip(out.tolist(), ((gain.name, i) for i in gain.elements().reshape(-1).tolist()), strict=True))
    elif gain is not None:
        step.store.doubt(out, f"{step.place} has a gain that is computed or fixed")


def gained(step: Step, x: Tracked, gain: Leaf) -> Any:
    """Channels times a learned gain. After a normalization it is its gain; elsewhere nobody has worked it out."""
    axis = axis_of(x.codes)
    out = step.store.fresh(x.shape[axis], gain.producer)
    own = channel(x.codes.movedim(axis, -1).reshape(-1, x.shape[axis]))
    first = own[0]
    back = axis - len(x.shape)
    fits = (
        -back <= len(gain.shape)
        and gain.shape[back] == gain.shape.numel() == len(first)
        and (own == first).all()
        and bool((first >= 0).all())
    )
    if not fits:
        for channels in (own.reshape(-1), out):
            step.store.doubt(channels, f"{step.place} multiplies some by one number")
        return step.nothing()
    if any(step.store.normed[c] or c in step.store.gain for c in first.tolist()):
        step.breaks(x, reason=f"{step.place} multiplies each by its own number")
        step.store.stiffen(out)
        return step.result(vectors(step.shape, out, axis))
    step.store.link(first, out)
    step.store.ways.lead(first, out)
    step.store.lose(first, f"{step.place} multiplies each by its own number")
    if all(step.store.same.get(c, c) in step.store.normal for c in first.tolist()):
        _gain(step, out, gain)
    else:
        step.store.doubt(out, f"{step.place} is between two linear maps", linear=True)
    return step.result(vectors(step.shape, out, axis))


@rule("batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(step: Step) -> Any:
    """With fixed statistics each channel gets a factor and a constant; a matrix could be moved through, which is not read."""
    mean, var, gain, bias = (step.args[name] for name in ("running_mean", "running_var", "weight", "bias"))
    if step.args.get("training") or not isinstance(mean, Leaf):
        return _spread_of_many(step)
    x = step.tracked(step.first)
    out = step.store.fresh(x.shape[1], step.where)
    codes = x.codes.movedim(1, -1).reshape(-1, x.shape[1])
    found = columns(step.store, codes, step.place)
    for column in found:
        step.store.link(column.channels, out[column.at])
        step.store.ways.lead(column.channels, out[column.at])
        step.store.taken.append(Taken(column.channels, "mean", buffer=(mean.name, mean.elements().reshape(-1)[column.at])))
    if not found:
        step.store.stiffen(out)
    step.store.separate.update(dict.fromkeys(out.tolist(), f"{step.place} is between two linear maps"))
    step.adds(bias, out)
    if isinstance(bias, Leaf) and bias.parameter and isinstance(gain, Leaf) and isinstance(var, Leaf):
        eps, channels = step.args["eps"], int(mean.shape.numel())
        step.store.means.append(BatchNormMean(step.where, mean.name, var.name, bias.name, gain.name, eps, channels))
    return step.result(vectors(step.shape, out, 1))


@rule("group_norm", "native_group_norm", "instance_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm")
def _spread_of_many(step: Step) -> Any:
    """A spread over samples or positions; gain and shift start channels that nothing can mix."""
    if isinstance(step.first, Tracked) and not step.first.opaque:
        step.store.doubt(distinct(step.first.codes), f"{step.place} takes a mean of several channels away")
    weight, bias = step.args.get("weight"), step.args.get("bias")
    if not (isinstance(weight, Leaf) and weight.parameter) or len(step.shape) < 2:
        return step.nothing()
    out = step.store.fresh(step.shape[1], step.where, rigid=True)
    if isinstance(bias, Leaf) and ("normalized_shape" in step.args or bias.shape.numel() != len(out)):
        step.store.give_up(f"{step.place} has a shift for each of several places")
        return step.nothing()
    step.adds(bias, out)
    return step.result(vectors(step.shape, out, 1))


@rule("amax", "amin", "max", "min")
def largest(step: Step) -> Any:
    """A constant passes that all have in common; where it goes is not followed."""
    if "other" in step.args:
        return comparison(step)
    if not step.varies or not isinstance(step.first, Tracked):
        return step.nonlinear()
    step.breaks(step.first, constants=True)
    step.store.lose(distinct(step.first.codes), f"{step.place} takes the largest or smallest of several")
    return step.nothing()


@rule(*COMPARISONS, "maximum", "minimum")
def comparison(step: Step) -> Any:
    """A constant passes that both sides have in common; where it goes is not followed."""
    if sum(is_learned(v) for v in step.values()) < 2:
        return step.nonlinear()
    for value in step.values():
        if isinstance(value, Tracked) and not value.opaque:
            step.breaks(value, constants=True)
            step.store.lose(distinct(value.codes), f"{step.place} compares values that may have a constant in common")
        elif is_learned(value):
            step.store.hide(f"{step.place} compares values that may have a constant in common")
    return step.nothing()
