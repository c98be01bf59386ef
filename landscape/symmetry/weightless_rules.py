"""Rules for operations without weights that let scales through."""

import re
from typing import Any

import torch
from torch import Tensor

from landscape.symmetry.calls import Call, Leaf, rule
from landscape.symmetry.scale_variables import PINNED, ZERO

# Positively homogeneous functions of one activation.


@rule("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as")
def identity(call: Call) -> Any:
    """A copy; of a parameter, still that parameter."""
    dtype = call.args.get("dtype")
    rounds = isinstance(dtype, torch.dtype) and not (dtype.is_floating_point or dtype.is_complex)
    return call.unknown() if rounds else call.first


@rule("relu", "leaky_relu", "abs", "neg", "positive")
def homogeneous(call: Call) -> Any:
    """f(s x) = s f(x) for s > 0."""
    return call.ids(call.first)


@rule("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "rrelu")
def only_in_training(call: Call) -> Any:
    """Homogeneous, unless the network insists on its random form."""
    return call.unknown() if call.args.get("train", call.args.get("training")) else call.ids(call.first)


@rule("prelu")
def prelu(call: Call) -> Any:
    """Homogeneous; the slopes are ratios of outputs and keep their values."""
    ids = call.ids(call.args["self"])
    call.pin(call.args["weight"])
    return ids


@rule("clamp", "clamp_min", "clamp_max", "threshold")
def clamp(call: Call) -> Any:
    """max(x, 0) and min(x, 0) in other spellings; any other bound has a scale of its own."""
    bounds = [bound for bound in list(call.args.values())[1:] if bound is not None]
    if any(isinstance(bound, (Tensor, Leaf)) or bound != 0 for bound in bounds):
        return call.unknown()
    return call.ids(call.first)


# Sums, means and maxima over axes.


@rule("sum", "mean", "amax", "amin", "max", "min", "cumsum")
def reduction(call: Call) -> Any:
    """What is added up, or compared, has one scale."""
    if "other" in call.args:
        return join(call)
    ids, dim = call.ids(call.first), call.args.get("dim")
    dims = [dim] if isinstance(dim, int) else list(dim or range(ids.ndim))
    common = call.mix(ids, dims)
    if len(call.shape) < ids.ndim:
        common = common.squeeze(tuple(dims))
    return call.results(common)


_POOLINGS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg", "_adaptive_avg") for n in (1, 2, 3)]
_POOLINGS += [f"max_pool{n}d_with_indices" for n in (1, 2, 3)]
_UPSAMPLINGS = [f"upsample_{kind}" for kind in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")]
_UPSAMPLINGS += [f"{prefix}{n}d" for prefix in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)]
_UPSAMPLINGS += ["_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"]


@rule(*_POOLINGS, *_UPSAMPLINGS)
def resample(call: Call) -> Any:
    """Means, maxima and interpolation over the spatial axes; padding with zeros or minus infinity has no scale."""
    ids = call.ids(call.first)
    found = re.search(r"(\d)d", call.name)
    assert found is not None  # the names above all say how many axes
    return call.results(call.mix(ids, range(-int(found[1]), 0)))


# Two operands.


@rule("add", "sub", "rsub", "maximum", "minimum")
def join(call: Call) -> Any:
    """A sum needs one scale on both sides: a residual stream shares it."""
    a, b = call.args["self"], call.args["other"]
    if isinstance(b, (int, float)) and b != 0:
        return call.unknown(f"{call.name} in {call.where} adds a constant")
    a, b = call.ids(a), call.ids(b) if isinstance(b, (Tensor, Leaf)) else torch.tensor(ZERO)
    call.variables.equate(a, b, f"{call.name} in {call.where} joins it to a value of fixed scale")
    a, b = a.expand(call.shape), b.expand(call.shape)
    return torch.where(a == ZERO, b, a) if bool((a == ZERO).any()) else a


@rule("mul")
def product(call: Call) -> Any:
    """Times a number or a fixed value: kept. Times a parameter: a layer of its own. Of two activations, one keeps its scale."""
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
            call.pin(b, reason=f"{call.name} in {call.where} multiplies two activations")
        return a.expand(call.shape)
    return b.expand(call.shape)


def _gain(call: Call, x: Tensor, gain: Leaf) -> Any:
    """Elementwise multiplication by a parameter, as in a hand-written normalisation layer."""
    if gain.shape.numel() == 1:
        call.pin(gain)
        return x.expand(call.shape)
    ndim = len(call.shape)
    shape = (1,) * (ndim - len(gain.shape)) + tuple(gain.shape)
    inputs = call.mix(x.expand(call.shape), [d for d in range(ndim) if shape[d] == 1])
    out = call.variables.fresh(gain.shape.numel(), gain.producer).view(shape)
    call.use(gain, num=out.view(gain.shape), den=inputs.reshape(gain.shape))
    return out.expand(call.shape)


@rule("div")
def quotient(call: Call) -> Any:
    """Over a number or a fixed value: kept."""
    if call.args.get("rounding_mode") is not None:
        return call.unknown()
    call.pin(call.args["other"], reason=f"{call.name} in {call.where} divides by it")
    return call.ids(call.args["self"]).expand(call.shape)


# Zeros, and operations that only move elements: the same call on the ids says where each one goes.


@rule("zeros", "zeros_like", "new_zeros")
def zeros(call: Call) -> Any:
    """Zero at every scale."""
    return torch.tensor(ZERO).expand(call.shape)


_PADDINGS = [f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)]


@rule("constant_pad_nd", "pad", "im2col", *_PADDINGS)
def pad(call: Call) -> Any:
    """Zeros have every scale, other constants have none. The kernels know no integers; doubles hold every id exactly."""
    name = next(iter(call.args))
    args = {**call.args, name: call.ids(call.first).double()}
    if call.name == "im2col":  # its own padding is 0, which here has to come out as ZERO
        return call.op(**{**args, name: args[name] - ZERO}).long() + ZERO
    if call.name in {"constant_pad_nd", "pad"} and args.get("mode", "constant") == "constant":
        args["value"] = float(PINNED if args["value"] else ZERO)
    return call.op(**args).long()


_MOVES = [
    "view", "_unsafe_view", "reshape", "view_as", "permute", "transpose", "t", "numpy_T", "mT", "movedim", "swapaxes",
    "swapdims", "squeeze", "unsqueeze", "flatten", "unflatten", "expand", "expand_as", "repeat", "tile", "repeat_interleave",
    "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk",
    "unbind", "cat", "concat", "stack", "flip", "roll", "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "slice_scatter", "select_scatter", "copy", "diagonal",
]  # fmt: skip


@rule(*_MOVES)
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
    """The operation itself; a view of an expanded tensor may have to be a copy."""
    if call.name in {"view", "_unsafe_view", "view_as"}:
        return next(iter(tensors.values())).reshape(call.shape)
    return call.op(**(call.args | tensors))


def _listed(value: Any) -> Any:
    """A value as a list."""
    return value if isinstance(value, (list, tuple)) else [value]
