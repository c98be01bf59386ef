"""Rules for operations without weights that preserve scales."""

import math
import re
from typing import Any

import torch
from torch import Tensor

from landscape.symmetry.calls import Call, fixed, rule
from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.operation_kinds import AVERAGES, MAXIMA
from landscape.symmetry.scale_variables import PINNED, ZERO

# Positively homogeneous functions of one activation.


@rule("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as")
def identity(call: Call) -> Any:
    """A copy; a copy of a parameter is still that parameter."""
    dtype = call.args.get("dtype")
    rounds = isinstance(dtype, torch.dtype) and not (dtype.is_floating_point or dtype.is_complex)
    return call.unknown() if rounds else call.first


@rule("relu", "leaky_relu", "abs", "neg", "positive")
def homogeneous(call: Call) -> Any:
    """f(s x) = s f(x) for s > 0."""
    return call.ids(call.first)


@rule("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "rrelu")
def only_in_training(call: Call) -> Any:
    """Homogeneous, unless the random form is active in eval mode."""
    return call.unknown() if call.args.get("train", call.args.get("training")) else call.ids(call.first)


@rule("prelu")
def prelu(call: Call) -> Any:
    """Homogeneous; the slopes are ratios of outputs and keep their values."""
    ids = call.ids(call.args["self"])
    call.pin(call.args["weight"])
    return ids


@rule("clamp", "clamp_min", "clamp_max", "threshold")
def clamp(call: Call) -> Any:
    """max(x, 0) and min(x, 0) in other forms; any other bound fixes the scale."""
    bounds = [bound for bound in list(call.args.values())[1:] if bound is not None]
    if any(isinstance(bound, (Tensor, Leaf)) or bound != 0 for bound in bounds):
        return call.unknown()
    return call.ids(call.first)


@rule("gt", "ge", "lt", "le", "eq", "ne", "sign", "sgn")
def comparison(call: Call) -> Any:
    """With 0, or of values that share a scale: the answer is the same at every scale."""
    other = call.args.get("other", 0)
    if isinstance(other, (Tensor, Leaf)):
        call.variables.equate(call.ids(call.first), call.ids(other), f"{call.place} compares it to a value of fixed scale")
    elif other != 0:
        return call.unknown()
    return fixed(call.shape)


@rule("where", "masked_fill")
def choice(call: Call) -> Any:
    """Values chosen among two that share a scale; minus infinity and 0 have every scale."""
    chosen, rest = ("self", "other") if call.name == "where" else ("self", "value")
    if not {chosen, rest} <= call.args.keys():
        return call.unknown()
    sides = []
    for value in (call.args[chosen], call.args[rest]):
        if isinstance(value, (int, float)):
            sides.append(torch.tensor(ZERO if value in (0, math.inf, -math.inf) else PINNED))
        else:
            sides.append(call.ids(value))
    a, b = sides
    call.variables.equate(a, b, f"{call.place} joins it to a value of fixed scale")
    a, b = a.expand(call.shape), b.expand(call.shape)
    return torch.where(a == ZERO, b, a) if bool((a == ZERO).any()) else a


@rule("full_like", "new_full", "full")
def filled(call: Call) -> Any:
    """0 has every scale, any other number none."""
    return zeros(call) if call.args.get("fill_value") == 0 else call.unknown()


# Sums, means and maxima over axes.


@rule("sum", "mean", "amax", "amin", "max", "min", "cumsum")
def reduction(call: Call) -> Any:
    """Values that are summed or compared must share one scale."""
    if "other" in call.args:
        return join(call)
    ids, dim = call.ids(call.first), call.args.get("dim")
    dims = [dim] if isinstance(dim, int) else list(dim or range(ids.ndim))
    common = call.mix(ids, dims)
    if len(call.shape) < ids.ndim:
        common = common.squeeze(tuple(dims))
    return call.results(common)


@rule(*AVERAGES, *MAXIMA)
def resample(call: Call) -> Any:
    """Means, maxima and interpolation over the spatial axes; zero or minus infinite padding is compatible with any scale."""
    ids = call.ids(call.first)
    match = re.search(r"(\d)d", call.name)
    assert match is not None  # all names above contain the number of axes
    return call.results(call.mix(ids, range(-int(match[1]), 0)))


# Two operands.


@rule("add", "sub", "rsub", "maximum", "minimum")
def join(call: Call) -> Any:
    """A sum needs the same scale on both sides; a residual stream shares it."""
    a, b = call.args["self"], call.args["other"]
    if isinstance(b, (int, float)) and b != 0:
        if isinstance(a, Tensor):
            call.variables.note(a, place=call.place)  # a bias and this number may scale together
        return call.unknown(f"{call.place} adds a constant")
    a, b = call.ids(a), call.ids(b) if isinstance(b, (Tensor, Leaf)) else torch.tensor(ZERO)
    call.variables.equate(a, b, f"{call.place} joins it to a value of fixed scale")
    a, b = a.expand(call.shape), b.expand(call.shape)
    return torch.where(a == ZERO, b, a) if bool((a == ZERO).any()) else a


@rule("mul")
def product(call: Call) -> Any:
    """By a number or fixed value: scale kept. By a parameter: a layer of its own. Of two activations: one keeps its scale."""
    a, b = call.args["self"], call.args["other"]
    if not isinstance(b, (Tensor, Leaf)):
        return call.ids(a)
    if isinstance(a, Leaf):
        a, b = b, a
    if isinstance(b, Leaf) and b.parameter:
        if isinstance(a, Leaf):
            return call.unknown()
        return _gain(call, a, b)
    a, b = call.ids(a), call.ids(b)
    if not call.variables.pinned(a):
        if not call.variables.pinned(b):
            call.variables.note(a, b, place=call.place)
            call.pin(b, reason=f"{call.place} multiplies two activations")
        return a.expand(call.shape)
    return b.expand(call.shape)


def _gain(call: Call, x: Tensor, gain: Leaf, *, over: bool = False) -> Any:
    """Elementwise multiplication by a parameter, or with `over` division, as in a hand-written normalisation layer."""
    ndim = len(call.shape)
    shape = (1,) * (ndim - len(gain.shape)) + tuple(gain.shape)
    out = call.variables.fresh(gain.shape.numel(), gain.producer, gain=call.variables.pinned(x)).view(shape)
    if gain.shape.numel() == 1 and not call.variables.pinned(x):
        call.variables.note(x, place=call.place)  # it may take up a factor that all of them share
        call.pin(gain, out, reason=f"{call.place} multiplies several scales by one number")
        return x.expand(call.shape)
    inputs = call.mix(x.expand(call.shape), [d for d in range(ndim) if shape[d] == 1])
    above, below = out.view(gain.shape), inputs.reshape(gain.shape)
    call.use(gain, num=below if over else above, den=above if over else below)
    return out.expand(call.shape)


@rule("div")
def quotient(call: Call) -> Any:
    """Division by a number or a fixed value keeps the scale."""
    if call.args.get("rounding_mode") is not None:
        return call.unknown()
    top, bottom = call.args["self"], call.args["other"]
    if isinstance(bottom, Leaf) and bottom.parameter and isinstance(top, Tensor):
        return _gain(call, top, bottom, over=True)
    if isinstance(bottom, Leaf) and bottom.parameter:
        call.variables.unread[call.place] = None
    if isinstance(bottom, Tensor):  # a common factor cancels
        if isinstance(top, Leaf) and top.parameter:
            call.variables.unread[call.place] = None
        elif isinstance(top, Tensor):
            call.variables.note(top, bottom, place=call.place)
    call.pin(bottom, reason=f"{call.place} divides by it")
    return call.ids(top).expand(call.shape)


@rule("glu")
def gated_half(call: Call) -> Any:
    """The first half times the sigmoid of the second one."""
    linear, gate = call.ids(call.first).chunk(2, call.args["dim"])
    call.pin(gate, reason=f"{call.place} is not positively homogeneous")
    return linear


# Zeros, and operations that only move elements: applying the call to the ids gives the position of each.


@rule("zeros", "zeros_like", "new_zeros")
def zeros(call: Call) -> Any:
    """Zero at every scale."""
    return torch.tensor(ZERO).expand(call.shape)


_PADDINGS = [f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)]


@rule("constant_pad_nd", "pad", "im2col", *_PADDINGS)
def pad(call: Call) -> Any:
    """Zeros have every scale, other constants none. The kernels do not support integers; doubles hold every id exactly."""
    name = next(iter(call.args))
    args = {**call.args, name: call.ids(call.first).double()}
    if call.name == "im2col":  # its padding of 0 must become ZERO
        return call.op(**{**args, name: args[name] - ZERO}).long() + ZERO
    if call.name in {"constant_pad_nd", "pad"} and args.get("mode", "constant") == "constant":
        args["value"] = float(PINNED if args["value"] else ZERO)
    return call.op(**args).long()


MOVES = [
    "view", "_unsafe_view", "reshape", "view_as", "permute", "transpose", "t", "numpy_T", "mT", "movedim", "swapaxes",
    "swapdims", "squeeze", "unsqueeze", "flatten", "unflatten", "expand", "expand_as", "repeat", "tile", "repeat_interleave",
    "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk",
    "unbind", "cat", "concat", "stack", "flip", "roll", "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "slice_scatter", "select_scatter", "copy", "diagonal",
]  # fmt: skip


@rule(*MOVES)
def move(call: Call) -> Any:
    """Every result element is some element of an input."""
    tensors = {n: arg for n, arg in call.args.items() if any(isinstance(v, (Tensor, Leaf)) for v in _listed(arg))}
    if not tensors or not tensors.keys() <= {"self", "input", "tensors", "src", "other"} or "dtype" in call.args:
        return call.unknown()
    values = [v for arg in tensors.values() for v in _listed(arg)]
    only = values[0]
    if len(values) == 1 and isinstance(only, Leaf):
        moved = _moved(call, {n: only.elements() for n in tensors})
        views = [Leaf(only.name, m.shape, only.parameter, m) for m in _listed(moved)]
        return views if isinstance(moved, (list, tuple)) else views[0]
    ids = {n: [call.ids(v) for v in arg] if isinstance(arg, (list, tuple)) else call.ids(arg) for n, arg in tensors.items()}
    return _moved(call, ids)


def _moved(call: Call, tensors: dict[str, Any]) -> Any:
    """Apply the operation itself; a view of an expanded tensor may need a copy."""
    if call.name in {"view", "_unsafe_view", "view_as"}:
        return next(iter(tensors.values())).reshape(call.shape)
    return call.op(**(call.args | tensors))


def _listed(value: Any) -> Any:
    """A value as a list."""
    return value if isinstance(value, (list, tuple)) else [value]
