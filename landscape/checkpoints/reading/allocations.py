"""Results and memory of the calls in a pickle, computed without making the calls."""

import math
from collections.abc import Callable
from typing import Any

import torch

from landscape.checkpoints.reading.harmless_classes import CLASSES, DICTIONARIES, NUMPY_CALLS
from landscape.checkpoints.reading.symbols import (
    DTYPES,
    QSCHEMES,
    STORAGES,
    TENSORS,
    Claim,
    Global,
    Made,
    Mapping,
    Storage,
    bad,
    kind,
)
from landscape.errors import MalformedError, printable


class Ledger:
    """Adds up what a pickle would allocate, and checks it against a budget in bytes.

    Attributes:
        storages: bytes of every storage that is referred to, by key.
        itemsizes: bytes of one element of each.
        logical: bytes of all tensors by their shapes, which also counts elements of stride 0.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.storages: dict[str, int] = {}
        self.itemsizes: dict[str, int] = {}
        self.logical = 0

    def call(self, function: Any, arguments: Any) -> Any:
        """The symbol for the result of a call of a global name."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise bad(f"a call of a known name with a tuple, found a call of a {kind(function)}")
        name = function.name
        if name in _CALLS:
            return _CALLS[name](self, *arguments)
        if name in TENSORS or name in STORAGES:
            return self._allocate(name, arguments)
        if name in ALLOWED and name not in CLASSES:
            raise bad(f"a call that torch.save writes, found a call of {name}")
        return Made(name)

    def storage(self, reference: Any) -> Storage:
        """A checked reference to a storage."""
        match reference:
            case ("storage", Global(name), str() as key, str(), int() as numel, *view) if name in STORAGES and numel >= 0:
                dtype = STORAGES[name]
            case _:
                raise bad("a reference to a storage, found something else")
        nbytes = numel * dtype.itemsize
        if self.storages.setdefault(key, nbytes) != nbytes:
            raise bad(f"one size for storage {printable(key, limit=40)}, found two")
        self.itemsizes[key] = dtype.itemsize
        self.afford(nbytes, "a storage")
        match view:  # the legacy format refers to parts of a storage
            case [] | [None]:
                return Storage(key, dtype, numel)
            case [(_, int() as offset, int() as length)] if min(offset, length) >= 0 and offset + length <= numel:
                return Storage(key, dtype, length)
        raise bad(f"a view inside storage {printable(key, limit=40)}, found one outside")

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Claim:
        """Check that a tensor lies inside its storage, and add its size by shape."""
        size, stride = _shape(size), _shape(stride)
        if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or len(size) != len(stride):
            raise bad("a tensor on a storage with an offset, a size and a stride, found something else")
        itemsize = (dtype or storage.dtype).itemsize
        numel, held = math.prod(size), storage.numel * storage.dtype.itemsize // itemsize
        if numel and offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= held:
            raise bad(
                f"a tensor inside storage {printable(storage.key, limit=40)} ({held} elements), found one that claims more"
            )
        self.logical += numel * itemsize
        self.afford(self.logical, "tensors")
        return Claim(numel * itemsize)

    def afford(self, nbytes: int, what: str) -> None:
        """Refuse an allocation that exceeds the budget."""
        if nbytes > self.budget:
            raise MalformedError(
                f"pickle: expected at most {self.budget} bytes, found {what} of {nbytes} bytes: over the memory budget",
                fix="if you trust the file, raise the budget",
            )

    def _allocate(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Refuse a tensor or storage created by its class, whose memory the file does not contain."""
        sizes = [item for item in arguments if type(item) is int] or [0]
        self.afford(math.prod(sizes) * (TENSORS | STORAGES)[name].itemsize, f"a call of {name}")
        raise bad(f"tensors backed by the file, found a call of {name} for memory that it does not hold")


def _shape(value: Any) -> tuple[int, ...]:
    """Check a size or a stride: a tuple of non-negative integers."""
    if not isinstance(value, tuple) or len(value) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in value):
        raise bad("a shape of whole numbers, found something else")
    return value


def _mapping(ledger: Ledger, *arguments: Any) -> Mapping:
    """OrderedDict(), defaultdict(list), Counter({...}) and similar."""
    return Mapping(arguments[-1] if arguments and isinstance(arguments[-1], dict | list) else ())


def _bytearray(ledger: Ledger, *arguments: Any) -> Made:
    """bytearray(n) allocates n bytes that the file does not contain."""
    if arguments and isinstance(arguments[0], int):
        ledger.afford(arguments[0], "a bytearray")
        raise bad("bytes backed by the file, found a bytearray of zeros")
    return Made("bytearray")


def _encode(ledger: Ledger, text: Any, codec: Any = "latin1") -> Made:
    """_codecs.encode carries bytes in protocol 2; other codecs are refused."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise bad("bytes as latin1 text, found another codec")
    return Made("bytes")


def _tensor(ledger: Ledger, *arguments: Any) -> Claim:
    """The usual tensor: storage, offset, size and stride, then arguments that take no memory."""
    return ledger.tensor(*arguments[:4])


def _tensor_of_dtype(ledger: Ledger, *arguments: Any) -> Claim:
    """A tensor with separate dtype and storage (torch's third form)."""
    storage, offset, size, stride, _grad, _hooks, dtype = arguments[:7]
    if not isinstance(dtype, Global) or dtype.name not in DTYPES:
        raise bad("a dtype of torch, found something else")
    return ledger.tensor(storage, offset, size, stride, DTYPES[dtype.name])


def _tensor_with_attributes(ledger: Ledger, function: Any, cls: Any, arguments: Any, *_: Any) -> Any:
    """A tensor with Python attributes; the inner call returns the tensor."""
    if not isinstance(cls, Global) or cls.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        raise bad("a plain tensor with attributes, found a subclass of Tensor")
    return ledger.call(function, arguments)


def _meta_tensor(ledger: Ledger, _dtype: Any, size: Any, *_: Any) -> Claim:
    """A tensor without data."""
    _shape(size)
    return Claim(0)


def _inner(ledger: Ledger, data: Any, *_: Any) -> Any:
    """A Parameter is represented by its tensor."""
    return data


def _opaque(name: str) -> Callable[..., Made]:
    """A small object that takes no memory beyond its own bytes."""
    return lambda ledger, *arguments: Made(name)


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_qtensor": _tensor,
    "torch._utils._rebuild_sparse_tensor": _opaque("sparse tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_parameter": _inner,
    "torch._utils._rebuild_parameter_with_state": _inner,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch.Size": lambda ledger, *items: tuple(items[0]) if items else (),
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    **dict.fromkeys(DICTIONARIES, _mapping),
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _encode,
    **{name: _opaque(name) for name in ("torch.serialization._get_layout", "torch.device", "builtins.set", "builtins.complex")},
    **{name: _opaque(name) for name in NUMPY_CALLS},
}
_VALUES = {"torch.nn.parameter.Parameter", "numpy.ndarray"}
ALLOWED = frozenset(set(_CALLS) | set(STORAGES) | set(TENSORS) | set(DTYPES) | QSCHEMES | set(CLASSES) | _VALUES)
