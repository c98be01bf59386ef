"""The modules that `fully_shard` wrapped, each with its own weights: gathered whole, and summed into parts again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.sharded.local_weights import LocalWeights


class Shards:
    """How one weight is divided: the shape of each process's part, along one dimension.

    Attributes:
        shape: of the whole weight.
        dim: along which it is divided.
        shapes: (size,) shapes of the parts; some may hold nothing.
    """

    def __init__(self, shape: torch.Size, dim: int, size: int) -> None:
        self.shape, self.dim = shape, dim
        length = -(-shape[dim] // size)
        rows = [max(min(length, shape[dim] - r * length), 0) for r in range(size)]
        self.shapes = [(*shape[:dim], n, *shape[dim + 1 :]) for n in rows]
        self.counts = [shape.numel() // max(shape[dim], 1) * n for n in rows]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole weight from flat parts."""
        return torch.cat([part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)], self.dim)

    def divided(self, whole: Tensor) -> list[Tensor]:
        """Flat parts of the whole weight."""
        return [part.reshape(-1) for part in whole.split([shape[self.dim] for shape in self.shapes], self.dim)]


class Wrapped:
    """One module that `fully_shard` wrapped, without those wrapped inside it, and its own weights.

    Args:
        module: the module.
        parameters: its own weights, sharded, each once.
        weights: those that vary, for their order.

    Attributes:
        inner: whether no other wrapped module is inside.
        own: positions of its weights that vary among `weights.parameters`.
    """

    def __init__(self, module: nn.Module, parameters: Sequence[Any], weights: LocalWeights) -> None:
        self.module, self._members = module, weights.members
        self.inner = not any(m is not module for m in wrapped_in(module))
        order = {id(p): i for i, p in enumerate(weights.parameters)}
        moving = [p for p in parameters if id(p) in order]
        held = [p for p in parameters if id(p) not in order]
        self.own = [order[id(p)] for p in moving]
        self._moving, self._held = (
            [Shards(p.shape, p.placements[0].dim, self._members.size) for p in kind] for kind in (moving, held)
        )
        self._frozen = [p.to_local().detach() for p in held]
        places = _places(module)
        self._places = [places[id(p)] for p in (*moving, *held)]

    def whole(self, *flats: Tensor, frozen: bool = False) -> list[list[Tensor]]:
        """Whole tensors of this process's parts of vectors of the varying weights; with `frozen`, then the other weights.

        Cost: one all-gather of all together.
        """
        kinds = [(flat, self._moving) for flat in flats]
        if frozen:
            kinds.append((_flat(self._frozen), self._held))
        given = [flat for flat, shards in kinds if shards]
        if not given:
            return [[] for _ in kinds]
        width = sum(s.counts[0] for _, shards in kinds for s in shards)
        rows = self._members.gather(_padded(given[0] if len(given) == 1 else torch.cat(given), width))
        starts, out = [0] * self._members.size, []
        for _, shards in kinds:
            tensors = []
            for s in shards:
                tensors.append(s.joined([rows[r, i : i + n] for r, (i, n) in enumerate(zip(starts, s.counts, strict=True))]))
                starts = [i + n for i, n in zip(starts, s.counts, strict=True)]
            out.append(tensors)
        return out

    def summed(self, wholes: Sequence[Tensor]) -> Tensor:
        """This process's part of the sum over all processes of whole tensors of the varying weights.

        Cost: one reduce-scatter.
        """
        if not self._moving:
            return wholes[0].new_zeros(0) if wholes else torch.zeros(0)
        width = sum(s.counts[0] for s in self._moving)
        rows = wholes[0].new_zeros(self._members.size, width)
        starts = [0] * self._members.size
        for s, tensor in zip(self._moving, wholes, strict=True):
            for r, part in enumerate(s.divided(tensor)):
                rows[r, starts[r] : starts[r] + len(part)] = part
                starts[r] += len(part)
        return self._members.scatter_sum(rows)[: starts[self._members.rank]]

    @contextmanager
    def holding(self, moving: Sequence[Tensor], held: Sequence[Tensor]) -> Iterator[None]:
        """Whole weights in the places of the sharded ones."""
        before = [(store, key, store[key]) for places in self._places for store, key in places]
        try:
            for tensor, places in zip((*moving, *held), self._places, strict=True):
                for store, key in places:
                    store[key] = tensor
            yield
        finally:
            for store, key, original in before:
                store[key] = original


def wrapped_modules(model: nn.Module, weights: LocalWeights) -> list[Wrapped]:
    """Every wrapped module with weights of its own.

    Raises:
        ValueError: a weight belongs to two of them, or is not sharded as the others are; the text says which.
    """
    from torch.distributed.tensor import DTensor, Shard

    out, seen = [], set[int]()
    names = {id(p): name for name, p in model.named_parameters()}
    for module in wrapped_in(model):
        own = {id(p): p for m in _own_modules(module) for p in m.parameters(recurse=False)}
        own = {key: p for key, p in own.items() if p.requires_grad or isinstance(p, DTensor)}  # others are whole, and stay
        for key, p in own.items():
            if key in seen:
                raise ValueError(f"{names[key]} belongs to two modules that are wrapped apart")
            if not isinstance(p, DTensor) or p.device_mesh.size() != weights.members.size or type(p.placements[0]) is not Shard:
                raise ValueError(f"{names[key]} is not sharded over all processes")
        seen |= set(own)
        if own:
            out.append(Wrapped(module, list(own.values()), weights))
    return out


def wrapped_in(module: nn.Module) -> list[nn.Module]:
    """The modules in it that `fully_shard` wrapped, with itself."""
    from torch.distributed.fsdp import FSDPModule

    return [m for m in module.modules() if isinstance(m, FSDPModule)]


def _own_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The module and what is in it, but for other wrapped modules."""
    from torch.distributed.fsdp import FSDPModule

    yield module
    for child in module.children():
        if not isinstance(child, FSDPModule):
            yield from _own_modules(child)


def _places(module: nn.Module) -> dict[int, list[tuple[dict[str, Any], str]]]:
    """Where each weight is stored."""
    found: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for m in dict.fromkeys(_own_modules(module)):
        for key, p in m._parameters.items():
            if p is not None:
                found.setdefault(id(p), []).append((m._parameters, key))
    return found


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """Parts as one vector."""
    return torch.cat([part.reshape(-1) for part in parts]) if parts else torch.zeros(0)


def _padded(flat: Tensor, width: int) -> Tensor:
    """The vector with zeros behind it."""
    return flat if len(flat) == width else torch.cat((flat, flat.new_zeros(width - len(flat))))
