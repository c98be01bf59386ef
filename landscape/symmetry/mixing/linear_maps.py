"""Rules for operations with weights: they read the channels of their input, and start new ones."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.symmetry.graph_calls import Leaf
from landscape.symmetry.mixing.channels import Numbers, Taken
from landscape.symmetry.mixing.mixtures import Reader, Trade
from landscape.symmetry.mixing.steps import Step, is_learned, rule
from landscape.symmetry.mixing.tracked import OPAQUE, Codes, Column, Tracked, columns, distinct, opaque, vectors


@rule("linear", accepts=("weights",))
def linear(step: Step) -> Any:
    """y = x W^T + b."""
    return _affine(step, step.args["input"], step.args["weight"], step.args["bias"], transposed=True)


@rule("addmm", accepts=("weights",))
def addmm(step: Step) -> Any:
    """b + x W."""
    if step.args["beta"] != 1 or step.args["alpha"] != 1:
        return step.unread()
    return _affine(step, step.args["mat1"], step.args["mat2"], step.args["self"], transposed=False)


def times_weight(step: Step, x: Any, weight: Leaf) -> Any:
    """x W with a weight matrix on the right."""
    return _affine(step, x, weight, None, transposed=False)


def _affine(step: Step, x: Any, weight: Any, bias: Any, *, transposed: bool) -> Any:
    """A weight matrix applied over the last axis of x."""
    if not isinstance(weight, Leaf) or not weight.parameter or len(weight.shape) != 2 or not _plain(bias):
        if isinstance(weight, Leaf) and not weight.parameter and isinstance(x, Tracked):
            return _fixed(step, x, bias)
        return step.unread()
    table = isinstance(x, Leaf) and x.parameter and x.name not in step.store.shared  # whose channels tell what is free
    x = step.tracked(x)
    if -1 in x.beside:
        step.store.hide(f"{step.place} reads values that no input changes beside others")
    if x.given and not table:
        _reads_given(step, x, more=bias is not None)
    if x.mark is not None and x.mark.kind == "weights" and bias is not None:
        step.store.hide(f"{step.place} reads numbers that sum to one, a constant of which its bias may take away")
    index = weight.elements() if transposed else weight.elements().t()  # (outputs, inputs)
    out = step.store.fresh(index.shape[0], weight.producer)
    call = int(step.store.call[out[0]])
    read = columns(step.store, x.codes, step.place)
    _beside_others(step, read, x.codes)
    for column in read:
        _reads(step, weight.name, index[:, column.at], column.channels, call, bias)
    rest = np.setdiff1d(np.arange(index.shape[1]), np.concatenate([c.at for c in read]) if read else [])
    if weight.name in step.store.shared and len(rest):
        step.store.reads(weight.name, index[:, rest], _unmixable(step, len(rest)), call)
    if weight.name not in step.store.frozen:
        before = {int(c) for column in read for c in step.store.call[column.channels]}
        values: set[Any] = {tuple(column.channels.tolist()) for column in read} or {x.source}
        step.store.direct[call] = values
        step.store.through[call] = values.union(*(step.store.through.get(c, set()) for c in before))
    step.store.writes(weight.name, index.t(), out)
    step.adds(bias, out)
    return Tracked(vectors(step.shape, out))


def _beside_others(step: Step, read: list[Column], codes: Codes) -> None:
    """Say where values that stand beside each other come by linear maps from one value: what one gains the other may lose."""
    store = step.store
    calls = np.unique(store.call[np.concatenate([column.channels for column in read])]).tolist() if read else []
    for one in calls:
        for two in calls:
            if one != two and store.direct.get(one, set()) & store.through.get(two, set()):
                names = " and ".join(sorted((store.calls[one], store.calls[two])))
                store.give_up(f"{step.place} reads {names}, two linear maps of one value")
        if any(isinstance(value, Tracked) for value in store.direct.get(one, ())) and bool((codes == OPAQUE).any()):
            store.give_up(f"{step.place} reads {store.calls[one]} beside a value of which that may be a linear map")


def _reads_given(step: Step, x: Tracked, *, more: bool) -> None:
    """Say where weights read a value that is the same for every input: fewer rows than weights leave some of them free."""
    rows = x.shape[1 if len(x.shape) > 2 else 0 : -1].numel()  # not those that are the same for every sample
    if rows < x.shape[-1] + more:
        step.store.give_up(f"{step.place} reads a value that no input changes")


def _unmixable(step: Step, n: int) -> Numbers:
    """Channels for inputs that are no channels: what a shared weight reads here may not be mixed anywhere."""
    own = step.store.fresh(n, step.where, rigid=True)
    step.store.break_(own, f"{step.place} reads a value that cannot be mixed")
    return own


def _plain(bias: Any) -> bool:
    """Whether a bias is a parameter or a buffer, or missing."""
    return bias is None or isinstance(bias, Leaf)


def _fixed(step: Step, x: Tracked, bias: Any) -> Any:
    """A linear map with fixed weights: a matrix cannot be taken up by it."""
    if not x.opaque:
        step.store.doubt(distinct(x.codes), f"{step.place} has fixed weights")
    return step.nothing() if not is_learned(bias) else step.unread()


def _reads(step: Step, name: str, index: Tensor, channels: Numbers, call: int, bias: Any) -> None:
    """Record that these weights, (outputs, n), read the channels; a bias takes away constants."""
    learned = isinstance(bias, Leaf) and bias.parameter
    step.store.reads(name, index, channels, call, bias if learned else None)
    if learned:
        reader = Reader(bias.name, bias.elements().reshape(-1), name, index)
        step.store.taken.append(Taken(channels, "bias", reader))
    else:
        step.store.goes_through(channels, call, f"{step.place} has no bias")


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def convolution(step: Step) -> Any:
    """W[o, i, ...] over the channel axis, with i counted within o's group; a transposed convolution has W[i, o, ...]."""
    weight, bias, groups = step.args["weight"], step.args["bias"], step.args["groups"]
    if not isinstance(weight, Leaf) or not weight.parameter or not _plain(bias):
        return step.unread()
    spatial = len(weight.shape) - 2
    x = step.tracked(step.args["input"])
    if x.given:
        step.store.give_up(f"{step.place} reads a value that no input changes")
    axis = len(x.shape) - spatial - 1
    if axis - len(x.shape) in x.beside:
        step.store.hide(f"{step.place} reads values that no input changes beside others")
    index = weight.elements()
    transposed = "transpose" in step.name or bool(step.args.get("transposed"))
    if transposed:
        inside = index.shape[0] // groups
        index = torch.cat([index[g * inside : (g + 1) * inside].transpose(0, 1) for g in range(groups)])
    out = step.store.fresh(index.shape[0], weight.producer)
    per_group = len(out) // groups
    store, call = step.store, int(step.store.call[out[0]])
    codes = x.codes.movedim(axis, -1).reshape(-1, x.shape[axis])
    width = index.shape[1]
    # Padding adds zeros, so that a bias cannot take a constant away at the border; nor do all outputs of a transposed one see
    # the same number of inputs.
    padding = step.args.get("padding", 0)
    bordered = transposed or padding not in (0, "valid", [0] * spatial) or bool((codes < 0).any())
    if x.opaque and weight.name in store.shared:
        store.pinned.add(weight.name)
    if width == 1:
        step.breaks(x, reason=f"{step.place} reads each channel alone", constants=not bordered)
        if not bordered and not x.opaque:
            store.lose(distinct(x.codes), f"{step.place} reads each channel alone, and its bias may take constants away")
    for g in range(groups if width > 1 else 0):
        own = index[g * per_group : (g + 1) * per_group]
        read = columns(store, codes[:, g * width : (g + 1) * width], step.place)
        _beside_others(step, read, codes[:, g * width : (g + 1) * width])
        for column in read:
            rows = own[:, column.at].movedim(1, -1)
            store.reads(weight.name, rows.reshape(-1, len(column.at)), column.channels, call)
            if bordered:
                store.fixed.update(column.channels.tolist())
                continue
            if not (isinstance(bias, Leaf) and bias.parameter):
                store.goes_through(column.channels, call, f"{step.place} has no bias")
                continue
            taken_by = bias.elements().reshape(-1)[g * per_group : (g + 1) * per_group]
            for place in rows.reshape(per_group, -1, len(column.at)).unbind(1):  # the bias takes away what all places add
                store.taken.append(Taken(column.channels, "bias", Reader(bias.name, taken_by, weight.name, place)))
    for g in range(groups if per_group > 1 else 0):
        own = index[g * per_group : (g + 1) * per_group]
        store.writes(weight.name, own.movedim(0, -1).reshape(-1, per_group), out[g * per_group : (g + 1) * per_group])
    store.split(out, np.arange(len(out)) // per_group)
    step.adds(bias, out)
    return Tracked(vectors(step.shape, out, axis))


@rule("embedding")
def embedding(step: Step) -> Any:
    """Rows of a table."""
    weight = step.args["weight"]
    if not isinstance(weight, Leaf) or not weight.parameter:
        return step.unread()
    out = step.store.fresh(weight.shape[1], weight.producer)
    step.store.writes(weight.name, weight.elements(), out, constant=True)
    return Tracked(vectors(step.shape, out))


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(step: Step) -> Any:
    """Gates fix every channel inside; the weights read their input linearly, which nobody has worked out.

    Both biases of a layer are added, but for the last third of a GRU's.
    """
    store = step.store
    for value in step.values():
        if isinstance(value, Tracked) and not value.opaque:
            store.doubt(distinct(value.codes), f"{step.place} reads it")
    parameters = [v for v in step.values() if isinstance(v, Leaf) and v.parameter]
    biases = [v for v in parameters if len(v.shape) == 1]
    matrices = [v for v in parameters if len(v.shape) == 2]
    for one, two in zip(biases[::2], biases[1::2], strict=False):
        if {one.name, two.name} & (store.held | store.shared):
            continue
        n = one.shape[0] * 2 // 3 if step.name == "gru" else one.shape[0]
        plus, minus = ({v.name: v.elements().reshape(1, -1)[:, :n]} for v in (one, two))
        store.trades.append(Trade(f"{one.name} to {two.name}", plus, minus))
    if len(matrices) > len(biases) > 0 or step.name == "rnn_relu" or any(v.name in store.shared for v in parameters):
        store.give_up(step.place)
    return [opaque(shape) for shape in step.shapes]
