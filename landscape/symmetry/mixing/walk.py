"""Follow the channels of a network's linear maps through its graph."""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from landscape.network.graph import Graph
from landscape.symmetry.graph_calls import Leaf, values_in, walk
from landscape.symmetry.mixing import carriers, contractions, linear_maps, normalizations, sums  # noqa: F401  # importing enters their rules
from landscape.symmetry.mixing.cases import masks  # noqa: F401  # as above
from landscape.symmetry.mixing.cases.unread_parts import Parts
from landscape.symmetry.mixing.channels import Channels, Taken
from landscape.symmetry.mixing.mixtures import OUTPUTS, Shift
from landscape.symmetry.mixing.steps import RULES, Step, is_learned, settle
from landscape.symmetry.mixing.tracked import Tracked, columns, distinct, opaque, vector_axis
from landscape.symmetry.operation_kinds import INERT, RECTIFYING
from landscape.symmetry.weightless_rules import MOVES

_CARRYING = frozenset(("mul", "div", "neg", "dropout", "clone", "contiguous", "to", "_to_copy", *INERT, *RECTIFYING, *MOVES))


def channels_of(graph: Graph, trained: frozenset[str], held: frozenset[str] = frozenset()) -> Channels:
    """What every channel of the network is written by, read by and mixed with.

    `trained` are the parameters that may change, `held` those that constants must leave as they are.
    """
    even = frozenset(
        n for n in graph.parameters if graph.tensors[n].ndim == 1 and bool((graph.tensors[n] == graph.tensors[n][:1]).all())
    )
    store = Channels(
        frozen=graph.parameters - trained, held=held, shared=_shared(graph), even_gains=even, tensors=graph.tensors
    )

    parts = Parts()

    def follow(op: Any, args: dict[str, Any], shapes: list[torch.Size], where: str) -> Any:
        step, before = Step(op, args, shapes, where, store), len(store.entries)
        result = _followed(step) if shapes else None
        if not step.varies:
            result = [_given(r) for r in result] if isinstance(result, list) else _given(result)
        else:
            result = _with_fixed(step, result)
        _remember(store, op, args, result)
        _note_uses(step, result, before)
        parts.note(step, result)
        return result

    def constant(value: torch.Tensor) -> Tracked:
        known = replace(opaque(value.shape, learned=False), given=True)
        store.made[id(known)] = (value,)
        return known

    def end(results: list[Any]) -> None:
        _output(store, results)
        for value in results:
            parts.read(value)
        store.cut_off = parts.shifts(graph, held)
        for place in parts.places():
            store.give_up(place)

    walk(graph, given=partial(opaque, learned=False), follow=follow, end=end, constant=constant)
    store.look()
    return store


def _remember(store: Channels, op: Any, args: dict[str, Any], result: Any) -> None:
    """Note how a value that depends on no parameter comes about."""
    taken = {id(v) for arg in args.values() for v in values_in(arg)}
    for i, value in enumerate(result if isinstance(result, list) else [result]):
        if isinstance(value, Tracked) and not value.learned and id(value) not in taken:
            store.made[id(value)] = (op, args, i if isinstance(result, list) else None)


def _given(value: Any) -> Any:
    """A result that is the same for every input."""
    return replace(value, given=True) if isinstance(value, Tracked) and not value.given else value


def _with_fixed(step: Step, result: Any) -> Any:
    """A result with the axes along which values that no input changes stand beside others, as zeros of padding do."""
    axes: set[int] = set()
    for value in step.values():
        if isinstance(value, Tracked) and value.beside and step.name in _CARRYING:
            axes |= value.beside if step.name not in MOVES else set(range(-len(step.shape), 0))
    if step.name in ("cat", "concat", "stack") and any(_is_fixed(v) for v in step.values()):
        dim, n = step.args.get("dim", 0), len(step.shape)
        axes.add(dim if dim < 0 else dim - n)
    if step.name in ("constant_pad_nd", "pad"):
        axes.update(-1 - i // 2 for i, n in enumerate(step.args["pad"]) if n > 0)
    if not axes:
        return result
    whole = [replace(r, beside=frozenset(axes)) if isinstance(r, Tracked) else r for r in values_in(result)]
    return whole if isinstance(result, list) else whole[0]


def _is_fixed(value: Any) -> bool:
    """Whether a value is the same for every input and no parameter makes it."""
    return not is_learned(value) and (isinstance(value, Leaf) or value.given)


def _shared(graph: Graph) -> frozenset[str]:
    """Parameters that several calls use."""
    uses: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in graph.leaves:
            uses[graph.leaves[node.name]] += len(node.users)
    return frozenset(name for name, n in uses.items() if n > 1)


def unused(graph: Graph, held: frozenset[str]) -> tuple[Shift, ...]:
    """Parameters that no output reads: every element may take any value."""
    needed = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    used = {graph.leaves[node.name] for node in needed if node.name in graph.leaves}
    rows = {n: torch.arange(graph.tensors[n].numel()).view(-1, 1) for n in sorted(graph.parameters - used - held)}
    return tuple(Shift(f"{name}: no output reads it", {name: index}, uniform=True) for name, index in rows.items())


def _note_uses(step: Step, result: Any, before: int) -> None:
    """A shared parameter whose use here wrote and read no channels may not change at all; a view of it is no use yet."""
    if isinstance(result, Leaf) or (isinstance(result, list) and any(isinstance(r, Leaf) for r in result)):
        return
    recorded = {entry.name for entry in step.store.entries[before:]}
    for value in step.values():
        if isinstance(value, Leaf) and value.name in step.store.shared and value.name not in recorded:
            step.store.pinned.add(value.name)


def _followed(step: Step) -> Any:
    """The results of one call."""
    settle(step)
    return RULES.get(step.name, Step.unread)(step)


def _output(store: Channels, results: list[Any]) -> None:
    """Outputs are what may not change; a loss may ignore a constant in all classes of the first one."""
    first = True
    for value in results:
        if isinstance(value, Leaf) and value.parameter:
            store.give_up(f"{value.name} is an output of the network")
        if not isinstance(value, Tracked):
            continue
        for codes in () if value.mark is None else (value.mark.codes, value.mark.others):
            if codes is not None:
                store.fixed.update(distinct(codes).tolist())
        if value.mark is not None:
            store.open_scores.pop(value.mark.number, None)
        if value.mark is not None and value.mark.place:
            both = [distinct(codes) for codes in (value.mark.codes, value.mark.others) if codes is not None]
            store.contracted.setdefault(value.mark.place, []).extend(both)
        own = distinct(value.codes)
        store.break_(own, "it is an output of the network", constants=first)
        axis = _class_axis(value) if first else None
        found = [] if axis is None else columns(store, value.codes.movedim(axis, -1), "the output")
        if axis is not None and len(found) == 1 and len(found[0].at) == value.shape[axis]:
            store.taken.append(Taken(found[0].channels, "outputs"))
        else:
            store.fixed.update(own.tolist())
            if first and not value.opaque and value.codes.ndim > 1:
                store.hide(OUTPUTS)
        first = False


def _class_axis(value: Tracked) -> int | None:
    """The axis of the classes of outputs, where a loss may ignore a constant: the last or the second; None if there is none.

    Outputs (B, T, C) of a language model have the classes last, as the loss of PyTorch takes them they come second, (B, C, T).
    """
    if value.opaque or value.codes.ndim < 2:
        return None
    found = vector_axis(value.codes)
    if found is None:
        return -1 if value.codes.ndim < 4 else 1
    return found if found in (1, value.codes.ndim - 1) else None
