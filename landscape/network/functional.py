"""A network as a function of its weights: other tensors stand in a module's places while a block runs, its own afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from landscape.errors import MismatchError
from landscape.network.batches import Batch

# Where each name's tensor stands: the dictionaries of all modules that share it, and its key there.
Places = dict[str, list[tuple[dict[str, Any], str]]]

_PLACES: WeakKeyDictionary[nn.Module, Places] = WeakKeyDictionary()


@contextmanager
def holding(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Weights and buffers under their names, in every place of a tied one.

    `torch.func.functional_call` ends with the forward pass. A backward pass that runs layers again (activation checkpointing)
    would then find the module's own weights, and give a derivative at another point without an error. So the block lasts as
    long as derivatives are taken.

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
        for store, key, own in reversed(before):
            store[key] = own


def called(module: nn.Module, tensors: Mapping[str, Tensor], batch: Batch) -> Any:
    """What the module returns for a batch with these weights and buffers."""
    with holding(module, tensors):
        return module(*batch.args, **batch.kwargs)


def _places(module: nn.Module) -> Places:
    """By name; a tensor that stands in several places is found under each of its names."""
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
