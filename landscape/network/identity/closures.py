"""Convert the tensors that a loss function holds to another dtype, as `nn.Module.to` does for a loss module."""

import copy
import functools
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from landscape.network.copying import converted, moved, owned
from landscape.network.identity.bytecode import is_foreign, is_library, lookups

_DEPTH = 4  # nested calls


def with_tensors(thing: Any, device: torch.device | None, dtype: torch.dtype) -> Any:
    """A function or callable object with its tensors moved to a device and dtype; unchanged if there is nothing to move.

    Class weights may be global variables of a lambda's module, closure variables, arguments of `functools.partial`, defaults
    or attributes. A loss that holds them in float32 rejects float64 outputs. Searched are the user's functions, objects, lists
    and dictionaries, and modules without trainable weights: a loss with trainable weights must be noticed elsewhere.

    Args:
        thing: the loss.
        device, dtype: for real tensors; complex ones get the complex dtype of that precision, integers keep theirs.
    """
    return _Mover(device, dtype).of(thing, _DEPTH)


class _Mover:
    """Maps each object to its converted copy, the same copy wherever the object is held."""

    def __init__(self, device: torch.device | None, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._twins: dict[int, tuple[Any, Any]] = {}  # with a reference to the object, so that its id is not reused

    def of(self, thing: Any, depth: int) -> Any:
        """The converted copy of an object, or the object itself if nothing in it moves."""
        if depth < 0 or id(thing) in self._twins:
            return self._twins.get(id(thing), (thing, thing))[1]
        self._twins[id(thing)] = thing, thing  # in case the object contains itself
        copied = self._made(thing, depth)
        self._twins[id(thing)] = thing, copied
        return copied

    def _made(self, thing: Any, depth: int) -> Any:
        if isinstance(thing, Tensor):
            return self._tensor(thing)
        if isinstance(thing, nn.Module):
            return self._module(thing)
        if isinstance(thing, functools.partial):
            parts = (thing.func, thing.args, thing.keywords)
            twins = tuple(self.of(p, depth - 1) for p in parts)
            return functools.partial(twins[0], *twins[1], **twins[2]) if _differ(twins, parts) else thing
        if isinstance(thing, types.MethodType):
            owner = self.of(thing.__self__, depth)
            return thing if owner is thing.__self__ else types.MethodType(thing.__func__, owner)
        if isinstance(thing, types.FunctionType):
            return thing if is_library(thing.__code__.co_filename) else self._function(thing, depth)
        if isinstance(thing, (list, tuple, dict)):
            leaves, kind = pytree.tree_flatten(thing)
            others = [self.of(leaf, depth - 1) for leaf in leaves]
            return pytree.tree_unflatten(others, kind) if _differ(others, leaves) else thing
        if hasattr(thing, "__dict__") and not isinstance(thing, (type, types.ModuleType)) and not is_foreign(type(thing)):
            attributes = {name: self.of(value, depth - 1) for name, value in vars(thing).items()}
            if _differ(attributes.values(), vars(thing).values()):
                copied = copy.copy(thing)
                vars(copied).update(attributes)
                return copied
        return thing

    def _tensor(self, t: Tensor) -> Tensor:
        if t.requires_grad or not (t.is_floating_point() or t.is_complex()):
            return t
        copied = moved(t, self.device, self.dtype)
        return t if copied.dtype == t.dtype and copied.device == t.device else copied

    def _module(self, module: nn.Module) -> nn.Module:
        held = [*module.parameters(), *module.buffers()]
        if any(p.requires_grad for p in module.parameters()) or all(self._tensor(t) is t for t in held):
            return module
        return converted(owned(module), self.device, self.dtype)

    def _function(self, f: types.FunctionType, depth: int) -> types.FunctionType:
        names = [n for n in lookups(f.__code__) if n in f.__globals__]
        looked_up = {n: self.of(f.__globals__[n], depth - 1) for n in names}
        cells = f.__closure__ or ()
        closed = [self.of(c.cell_contents, depth - 1) if _full(c) else None for c in cells]
        defaults, named = self.of(f.__defaults__, depth - 1), self.of(f.__kwdefaults__, depth - 1)
        same = (
            not _differ(looked_up.values(), (f.__globals__[n] for n in names))
            and all(not _full(c) or value is c.cell_contents for c, value in zip(cells, closed, strict=True))
            and defaults is f.__defaults__
            and named is f.__kwdefaults__
        )
        if same:
            return f
        closure = tuple(
            c if not _full(c) or value is c.cell_contents else types.CellType(value)
            for c, value in zip(cells, closed, strict=True)
        )
        copied = types.FunctionType(f.__code__, {**f.__globals__, **looked_up}, f.__name__, defaults, closure)
        copied.__kwdefaults__ = named
        functools.update_wrapper(copied, f, updated=("__dict__",))
        vars(copied).pop("__wrapped__", None)
        return copied


def _differ(twins: Any, things: Any) -> bool:
    """Whether any pair are different objects."""
    return any(a is not b for a, b in zip(twins, things, strict=True))


def _full(cell: types.CellType) -> bool:
    """Whether a closure cell is set."""
    try:
        cell.cell_contents  # noqa: B018 - reading an empty cell raises
    except ValueError:
        return False
    return True
