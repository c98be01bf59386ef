"""Restore a network's state after a forward pass."""

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from landscape.network.copying import kept, plain

_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore a network's attributes, buffers, lists and dictionaries after the block.

    Objects of other classes, such as a cache of keys and values, are not restored. Neither are weights, which a forward pass
    should not write to (see `landscape.network.forward_checks`).
    """
    containers = _containers(model)
    tensors = [(t, t._version, t.detach().clone()) for t in _written(model)]
    try:
        yield
    finally:
        for container, content in containers:
            _put_back(container, content)
        for t, version, before in tensors:
            if t._version != version:
                t.data.copy_(before)


def _containers(model: nn.Module) -> list[tuple[Any, Any]]:
    """Every dictionary, list and set that the modules hold, their attributes first, each with a copy of its content."""
    left: list[Any] = [vars(m) for m in model.modules()]
    seen: set[int] = set()
    copies = []
    while left:
        container = left.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        copies.append((container, copy.copy(container)))
        inside = container.values() if isinstance(container, dict) else container
        left += [value for value in inside if type(value) in _CONTAINERS]
    return copies


def _put_back(container: Any, content: Any) -> None:
    if len(container) == len(content) and all(a is b for a, b in zip(_flat(container), _flat(content), strict=True)):
        return
    container.clear()
    (container.extend if isinstance(container, (list, deque)) else container.update)(content)


def _flat(container: Any) -> list[Any]:
    return [thing for pair in container.items() for thing in pair] if isinstance(container, dict) else list(container)


def _written(model: nn.Module) -> list[Tensor]:
    """Tensors besides the weights that a forward pass might write to."""
    held = [t for m in model.modules() for t in (*m._buffers.values(), *kept(m)) if isinstance(t, Tensor)]
    return [t for t in held if plain(t) and not t.is_inference()]
