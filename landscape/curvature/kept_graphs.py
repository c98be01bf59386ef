"""First-order graphs that are kept between curvature products, so that a product costs two gradients instead of three."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from weakref import ref

import torch
from torch import Tensor

# Bytes of activations that may stay alive between products.
BUDGET = 4 << 30


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """The graph of one batch's gradient: its leaves, the gradient as a function of them, and the batch's share of the mean."""

    leaves: dict[str, Tensor]
    gradient: dict[str, Tensor]
    share: float


@dataclass(eq=False)
class Kept:
    """The graphs of one point of weight space, where all of them fit the budget. One network at a time keeps its own.

    Attributes:
        fits: whether to keep; None until it was found out.
    """

    fits: bool | None = None
    _theta: Tensor | None = None
    _graphs: list[FirstOrder] = field(default_factory=list)

    def graphs(self, theta: Tensor, build: Callable[[], Iterator[FirstOrder]]) -> Iterator[FirstOrder]:
        """The graphs at theta, from memory where they are there, else built one after another."""
        global _owner
        if self._theta is theta:
            yield from self._graphs
            return
        self.clear()
        if not self.fits:
            yield from build()
            return
        other = _owner() if _owner is not None else None
        if other is not None and other is not self:
            other.clear()
        graphs = []
        for graph in build():
            graphs.append(graph)
            yield graph
        # Only a full round is kept: one that an error cut short is not.
        self._theta, self._graphs, _owner = theta, graphs, ref(self)

    def clear(self) -> None:
        """Let the graphs go."""
        self._theta, self._graphs = None, []


_owner: "ref[Kept] | None" = None


def saved_bytes(build: Callable[[], object], apart_from: dict[str, Tensor]) -> int:
    """Bytes that autograd saves while a graph is built, each storage once, without those of the given tensors."""
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
