"""Graphs kept between curvature products, so that a product costs two gradients instead of three."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import ref

import torch
from torch import Tensor

# Bytes of activations that may be kept between products.
BUDGET = 4 << 30

# What is kept of a batch.
Graph = TypeVar("Graph")


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """The graph of one batch's gradient: leaves, the gradient as a function of them, and the batch's share of the mean."""

    leaves: dict[str, Tensor]
    gradient: dict[str, Tensor]
    share: float


@dataclass(eq=False)
class Kept(Generic[Graph]):
    """The graphs at one point of weight space, if all of them fit the budget. Only one network at a time keeps
    graphs, those of one matrix.

    Attributes:
        fits: whether to keep the graphs; None if not yet determined.
    """

    fits: bool | None = None
    _theta: Tensor | None = None
    _graphs: list[Graph] = field(default_factory=list)

    def graphs(self, theta: Tensor, build: Callable[[], Iterator[Graph]]) -> Iterator[Graph]:
        """The graphs at theta: kept ones if available, otherwise built one after another."""
        global _owner
        if self._theta is theta:
            yield from self._graphs
            return
        self.clear()
        self.alone()
        if not self.fits:
            yield from build()
            return
        graphs = []
        for graph in build():
            graphs.append(graph)
            yield graph
        # Graphs are kept only after a full round without an error.
        self._theta, self._graphs, _owner = theta, graphs, ref(self)

    def alone(self) -> None:
        """Release the graphs of any other matrix or network: the budget is for one set, also while one is built or measured."""
        other = _owner() if _owner is not None else None
        if other is not None and other is not self:
            other.clear()

    def clear(self) -> None:
        """Release the graphs."""
        self._theta, self._graphs = None, []


_owner: "ref[Kept[Any]] | None" = None


def saved_bytes(build: Callable[[], object], apart_from: dict[str, Tensor]) -> int:
    """Bytes that autograd saves while a graph is built, counting each storage once and excluding the given tensors."""
    known = {t.untyped_storage().data_ptr() for t in apart_from.values()}
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        held = build()
    del held
    return sum(sizes.values())
