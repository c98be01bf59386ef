"""Elements of parameters, and of activations, that are cut off and that no output reads."""

from typing import Any

import torch

from landscape.network.graph import Graph
from landscape.symmetry.graph_calls import Leaf, values_in
from landscape.symmetry.mixing.mixtures import Shift
from landscape.symmetry.mixing.steps import Step, axis_of
from landscape.symmetry.mixing.tracked import Tracked

_CUTS = frozenset(
    "slice select narrow split split_with_sizes chunk tensor_split unbind unsafe_split unsafe_chunk".split()  # noqa: SIM905
)


class Parts:
    """What is read of each parameter, and of the vectors of each value that depends on one; told of every call in turn."""

    def __init__(self) -> None:
        self._elements: dict[str, list[torch.Tensor] | None] = {}  # None for all of them
        self._whole: set[int] = set()
        self._cut: dict[int, tuple[str, int, list[torch.Tensor]]] = {}  # value -> place, length of its vectors, what is read
        self._pieces: dict[int, tuple[list[torch.Tensor], torch.Tensor]] = {}  # one of several results, which may be unread

    def note(self, step: Step, result: Any) -> None:
        """What one call reads; a view of a parameter reads nothing yet."""
        results = values_in(result)
        if any(isinstance(r, Leaf) for r in results):
            return
        for value in step.values():
            cut = isinstance(value, Tracked) and self._cuts(step, value, results)
            self.read(value, whole=not cut and not any(r is value for r in results))

    def read(self, value: Any, *, whole: bool = True) -> None:
        """A value is read, `whole` if by more than a call that cuts it."""
        if isinstance(value, Leaf) and value.index is None:
            self._elements[value.name] = None
        elif isinstance(value, Leaf):
            known = self._elements.setdefault(value.name, [])
            if known is not None:
                known.append(value.elements().reshape(-1))
        elif isinstance(value, Tracked):
            if id(value) in self._pieces:
                known, part = self._pieces[id(value)]
                known.append(part)
            if whole:
                self._whole.add(id(value))

    def _cuts(self, step: Step, value: Tracked, results: list[Any]) -> bool:
        """Whether a call cuts vectors of a value that depends on a parameter; notes the parts."""
        axis = axis_of(value.codes)
        along = step.name in _CUTS and value.shape and step.args.get("dim", 0) % len(value.shape) == axis
        if not along or not value.learned or (value.mark is not None and value.mark.kind in ("scores", "weights")):
            return False
        index = torch.arange(value.shape[axis]).view([-1 if d == axis else 1 for d in range(len(value.shape))])
        name = next(n for n, arg in step.args.items() if arg is value)
        parts = step.op(**(step.args | {name: index}))
        _, _, read = self._cut.setdefault(id(value), (step.place, value.shape[axis], []))
        if isinstance(parts, torch.Tensor):
            read.append(parts.reshape(-1))
        else:
            self._pieces.update((id(r), (read, p.reshape(-1))) for r, p in zip(results, parts, strict=True))
        return True

    def shifts(self, graph: Graph, held: frozenset[str]) -> tuple[Shift, ...]:
        """Elements of parameters that no output reads, of those of which it reads others."""
        found = []
        for name, known in self._elements.items():
            if known is None or name not in graph.parameters - held:
                continue
            unread = torch.ones(graph.tensors[name].numel(), dtype=torch.bool)
            unread[torch.cat(known)] = False
            if bool(unread.any()):
                rows = {name: unread.nonzero()}
                found.append(Shift(f"{name}: no output reads {int(unread.sum())} of its elements", rows, uniform=True))
        return tuple(found)

    def places(self) -> list[str]:
        """Calls that cut a part of every vector off which nothing else reads."""
        found: dict[str, None] = {}
        for value, (place, length, read) in self._cut.items():
            if value not in self._whole and len(torch.cat([torch.zeros(0, dtype=torch.long), *read]).unique()) < length:
                found[f"{place} leaves a part of each vector that no output reads"] = None
        return list(found)
