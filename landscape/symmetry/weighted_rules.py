"""Rules for operations with weights, each of which introduces a new scale for each output channel."""

from typing import Any

from torch import Tensor

from landscape.symmetry.calls import Call, Ids, along, fixed, rule
from landscape.symmetry.graph_calls import Leaf


@rule("linear")
def linear(call: Call) -> Any:
    """y = x W^T + b: W[o, i] scales by s_o / s_i, b[o] by s_o."""
    return _affine(call, call.args["input"], call.args["weight"], call.args["bias"], transposed=True)


@rule("addmm")
def addmm(call: Call) -> Any:
    """b + x W."""
    if call.args["beta"] != 1 or call.args["alpha"] != 1:
        return call.unknown()
    return _affine(call, call.args["mat1"], call.args["mat2"], call.args["self"], transposed=False)


@rule("matmul", "mm", "bmm")
def matmul(call: Call) -> Any:
    """x W with a weight matrix, or a product of two activations, of which one keeps its scale and the other is fixed."""
    left, right = list(call.args.values())[:2]
    if isinstance(right, Leaf) and right.parameter and len(right.shape) == 2 and isinstance(left, Tensor):
        return _affine(call, left, right, None, transposed=False)
    if isinstance(left, Leaf) or isinstance(right, Leaf) or min(left.ndim, right.ndim) < 2:
        return call.unknown()
    if call.variables.pinned(right):
        return call.mix(left, [-1]).expand(call.shape)
    call.variables.note(left, right, place=call.place)
    call.pin(left, reason=f"{call.place} multiplies two activations")
    return call.mix(right, [-2]).expand(call.shape)


def _affine(call: Call, x: Any, weight: Any, bias: Any, *, transposed: bool) -> Any:
    """A weight matrix applied over the last axis of x."""
    if not isinstance(weight, Leaf) or not weight.parameter or len(weight.shape) != 2:
        return call.unknown(f"the weight of {call.place} is computed or fixed")
    x = call.ids(x)
    inputs = call.mix(x, range(x.ndim - 1)).reshape(-1)
    out = call.variables.fresh(call.shape[-1], weight.producer)
    if transposed:
        call.use(weight, num=out[:, None], den=inputs)
    else:
        call.use(weight, num=out, den=inputs[:, None])
    call.use(bias, num=out)
    return out.expand(call.shape)


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def convolution(call: Call) -> Any:
    """W[o, i, ...] scales by s_o / s_i, with i counted within o's group; a transposed convolution has W[i, o, ...]."""
    weight, groups = call.args["weight"], call.args["groups"]
    if not isinstance(weight, Leaf) or not weight.parameter:
        return call.unknown(f"the weight of {call.place} is computed or fixed")
    x = call.ids(call.args["input"])
    spatial = len(weight.shape) - 2
    axis = x.ndim - spatial - 1  # the batch axis may be missing
    inputs = call.mix(x, [d for d in range(x.ndim) if d != axis]).reshape(groups, -1)
    out = call.variables.fresh(call.shape[axis], weight.producer)
    if "transpose" in call.name or call.args.get("transposed"):
        num, den = out.view(groups, -1).repeat_interleave(inputs.shape[1], dim=0), inputs.reshape(-1, 1)
    else:
        num, den = out[:, None], inputs.repeat_interleave(len(out) // groups, dim=0)
    tail = (1,) * spatial
    call.use(weight, num=num.reshape(*num.shape, *tail), den=den.reshape(*den.shape, *tail))
    call.use(call.args["bias"], num=out)
    return along(out, axis, x.ndim).expand(call.shape)


@rule("embedding")
def embedding(call: Call) -> Any:
    """Rows of a table: one scale for each column."""
    weight = call.args["weight"]
    call.pin(call.args["indices"])
    if not isinstance(weight, Leaf) or not weight.parameter:
        return call.unknown()
    out = call.variables.fresh(weight.shape[1], weight.producer)
    call.use(weight, num=out)
    return out.expand(call.shape)


@rule("batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> Any:
    """With fixed statistics, (x - mean) / sqrt(var + eps): they absorb any scale of x; gamma and beta introduce a new one."""
    mean, var, weight = (call.args[name] for name in ("running_mean", "running_var", "weight"))
    if call.args.get("training") or not isinstance(mean, Leaf) or not isinstance(var, Leaf):
        return own_statistics(call)
    x = call.ids(call.args["input"])
    inputs = call.mix(x, [d for d in range(x.ndim) if d != 1]).reshape(-1)
    call.use_statistic(mean, num=inputs)
    call.use_statistic(var, num=inputs, eps=call.args["eps"])
    if not isinstance(weight, Leaf) or not weight.parameter:
        call.pin(weight, call.args["bias"])
        return call.results(fixed())
    out = call.variables.fresh(call.shape[1], weight.producer, gain=True)
    call.use(weight, num=out)
    call.use(call.args["bias"], num=out)
    return call.results(along(out, 1, x.ndim))


_OWN = ["layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm", "group_norm", "native_group_norm", "instance_norm"]
_OWN += ["native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "cudnn_batch_norm"]


@rule(*_OWN)
def own_statistics(call: Call) -> Any:
    """x divided by its own spread, times gamma: eps fixes the scale of x, gamma and beta introduce a new one."""
    weight, bias = call.args["weight"], call.args.get("bias")
    statistics = [call.args.get(name) for name in ("running_mean", "running_var")]
    if call.variables.nearly and isinstance(call.args["input"], Tensor) and call.args["input"].ndim > 1:
        _alike(call, call.args["input"])
    else:
        call.pin(call.args["input"], reason=f"{call.place} divides by the spread of its input, plus eps")
    call.pin(*statistics)
    if not isinstance(weight, Leaf) or not weight.parameter:
        call.pin(weight, bias)
        return call.results(fixed())
    out: Ids = call.variables.fresh(weight.shape.numel(), weight.producer, gain=True).view(weight.shape)
    call.use(weight, num=out)
    call.use(bias, num=out)
    return call.results(out if "layer" in call.name or "rms" in call.name else along(out, 1, len(call.shape)))


def _alike(call: Call, x: Ids) -> None:
    """Values that share one spread must share one scale, which the normalization takes away."""
    if "layer" in call.name or "rms" in call.name:
        call.mix(x, range(x.ndim - len(call.args["normalized_shape"]), x.ndim))
    elif "group" in call.name:
        groups = call.args["num_groups"] if "num_groups" in call.args else call.args["group"]
        call.mix(x.reshape(x.shape[0], groups, -1), [-1])
    elif "instance" in call.name:
        call.mix(x, range(2, x.ndim))
    else:
        call.mix(x, [d for d in range(x.ndim) if d != 1])


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Any:
    """softmax(Q K^T) V: linear in V, whose channels keep their scales; Q and K are fixed."""
    value, query = call.args["value"], call.args["query"]
    reason = f"the softmax of {call.place} is not homogeneous"
    call.variables.note(call.ids(query), call.ids(call.args["key"]), place=call.place)
    call.pin(query, call.args["key"], call.args["attn_mask"], reason=reason)
    if not isinstance(value, Tensor) or value.shape[:-2] != call.shape[:-2]:
        return call.unknown(reason)
    return call.mix(value, [-2]).expand(call.shape)
