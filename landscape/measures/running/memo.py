"""Cache of the computations that measures of one Objective share, with the cost of each."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.results import Spent

T = TypeVar("T")


@dataclass(frozen=True)
class _Computed:
    """A result, the generator's state after it, and its cost."""

    result: Any
    state: Tensor
    spent: Spent


_memory: WeakKeyDictionary[Objective, dict[tuple[object, ...], _Computed]] = WeakKeyDictionary()


def once(objective: Objective, generator: torch.Generator, key: tuple[object, ...], compute: Callable[[], T]) -> T:
    """`compute()`, cached: the same key and generator state give the same result and the same final state."""
    known = _memory.setdefault(objective, {})
    full = (*key, generator.get_state().numpy().tobytes())
    if full not in known:
        before = objective.spent
        result = compute()
        known[full] = _Computed(result, generator.get_state(), objective.spent - before)
    found = known[full]
    generator.set_state(found.state)
    return found.result


def computed(objective: Objective) -> dict[str, Spent]:
    """Digest of each cached computation -> its cost; runs with the same seeds have the same digests."""
    return {hashlib.sha256(repr(key).encode()).hexdigest()[:16]: c.spent for key, c in _memory.get(objective, {}).items()}
