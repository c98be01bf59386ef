"""A network as a function of its weights: a module's tensors are replaced inside a block and restored after it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from landscape.errors import MismatchError
from landscape.network.batches import Batch

# For each name, where its tensor is stored: the dictionaries of all modules that share it, and its key there.
Places = dict[str, list[tuple[dict[str, Any], str]]]

_PLACES: WeakKeyDictionary[nn.Module, Places] = WeakKeyDictionary()


@contextmanager
def holding(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Place weights and buffers, by name, in the module; a tied tensor is replaced everywhere.

    `torch.func.functional_call` restores the weights when the forward pass ends. A backward pass that runs layers again
    (activation checkpointing) would then use the module's own weights and silently give a derivative at another point. This
    block must therefore last as long as derivatives are taken.

    Raises:
        MismatchError: the module has no tensor of that name.
    """
    places = _PLACES.get(module)
    if places is None:
        places = _PLACES[module] = _places(module)
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, tensor in tensors.items():
            if name not in places:
                raise MismatchError(f"expected the name of a weight or buffer of the network, found {name!r}")
            for store, key in places[name]:
                before.append((store, key, store[key]))
                store[key] = tensor
        yield
    finally:
        for store, key, original in reversed(before):
            store[key] = original


def called(module: nn.Module, tensors: Mapping[str, Tensor], batch: Batch) -> Any:
    """The module's return value for a batch at these weights and buffers."""
    with holding(module, tensors):
        return module(*batch.args, **batch.kwargs)


def _places(module: nn.Module) -> Places:
    """Storage places by name; a tied tensor is listed under each of its names."""
    shared: dict[int, list[tuple[dict[str, Any], str]]] = {}
    named: dict[str, int] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for store in (part._parameters, part._buffers):
            for key, t in store.items():
                if t is not None:
                    named[f"{prefix}.{key}" if prefix else key] = id(t)
                    places = shared.setdefault(id(t), [])
                    if not any(store is other and key == name for other, name in places):
                        places.append((store, key))
    return {name: shared[tensor] for name, tensor in named.items()}
