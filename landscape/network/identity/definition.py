"""Hashes of functions, objects and layers that agree between processes: code, settings and tensors."""

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.network.identity.bytecode import is_foreign, is_foreign_module, is_library, lookups, state, stored, version
from landscape.network.identity.hashes import Pieces, named_tensors, sha256, whole_tensors

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
_MODULE = set(vars(nn.Module())) | {"training"}  # attributes that torch sets in every layer
_DEPTH = 60  # levels of nesting; real code has a handful


def definition(thing: object) -> str:
    """SHA-256 of a function, an object, a class, a module or a plain value.

    A function's hash covers its bytecode and constants, defaults, attributes, closure, and the global names that it reads in
    the user's modules. An object's covers its attributes and class; a class's its methods and attributes, inherited ones
    included; a layer's the content of `layers` and its tensors; a tensor's its dtype, shape and bytes. A library object counts
    by its name, the library's version (except torch's and Python's, which are recorded beside the hash) and its plain
    settings. Comments and names of local variables do not count.

    Conventions: attributes that a call sets, such as counters, are state and do not count.

    Accuracy: bytecode differs between versions of Python. Objects that cannot be inspected (compiled extensions, open files,
        random generators, nesting deeper than 60) count by the name of their type alone. Code that is looked up at run time
        (`getattr` with a computed name, a library's registry) is not covered.

    Cost: one reading of all tensors involved.

    Example:
        >>> twice = definition(lambda x: 2 * x)
        >>> twice == definition(lambda y: 2 * y), twice == definition(lambda x: 3 * x)
        (True, False)
    """
    return _Definitions().of(thing)


def layers(module: nn.Module) -> Iterator[str]:
    """Every layer of a network: name, type, settings, and the code of classes that are not a library's; no tensors.

    `repr` would omit many settings, such as label smoothing.
    """
    known = _Definitions()
    named_layers = [*module.named_modules()]
    for name, layer in named_layers:
        known.name(layer, f"layer {name}")  # a layer held twice, or a reference to a parent, is named but not opened
    for name, layer in named_layers:
        yield f"{name}: {type(layer).__qualname__}"
        yield from known.attributes(layer, _MODULE)


class _Definitions:
    """Hashes of objects that may refer to one another, also in cycles."""

    def __init__(self) -> None:
        self._path: list[object] = []  # objects being hashed; a reference to one of them counts as its distance
        self._known: dict[int, tuple[object, str]] = {}  # with a reference to the object, so that its id is not reused

    def name(self, thing: object, text: str) -> None:
        """Represent an object by a text wherever it is held."""
        self._known[id(thing)] = thing, sha256([text])

    def of(self, thing: object) -> str:
        """Hash of one object."""
        if type(thing) in _PLAIN:
            return sha256([f"{type(thing).__name__} {thing!r}"])
        if id(thing) in self._known:
            return self._known[id(thing)][1]
        for steps, outer in enumerate(reversed(self._path)):
            if outer is thing:
                return sha256([f"itself, {steps} out"])
        if len(self._path) > _DEPTH:
            return sha256([_name(thing)])
        self._path.append(thing)
        try:
            digest = sha256(self._pieces(thing))
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
            digest = sha256([f"closed {_name(thing)}"])  # for instance a tensor inside a transform, which has no bytes
        self._path.pop()
        self._known[id(thing)] = thing, digest
        return digest

    def _pieces(self, thing: Any) -> Pieces:
        """The parts of an object that its hash covers."""
        match thing:
            case Tensor():
                yield from whole_tensors([thing])
            case nn.Module():
                for name, layer in thing.named_modules():
                    yield f"{name}: {type(layer).__qualname__}"
                    yield from self.attributes(layer, _MODULE)
                yield from named_tensors({k: t for k, t in thing.state_dict().items() if isinstance(t, Tensor)})
            case np.ndarray():
                yield f"{thing.dtype} {thing.shape}"
                yield repr(thing.tolist()) if thing.dtype.hasobject else np.ascontiguousarray(thing).tobytes().hex()
            case tuple() | list() | set() | frozenset():
                parts = [self.of(x) for x in thing]
                yield type(thing).__qualname__
                yield from sorted(parts) if isinstance(thing, (set, frozenset)) else parts
            case Mapping():
                yield type(thing).__qualname__
                yield from sorted(self.of(k) + self.of(v) for k, v in thing.items())
            case functools.partial():
                yield "partial"
                yield from (self.of(part) for part in (thing.func, thing.args, thing.keywords))
            case types.FunctionType():
                yield from self._function(thing)
            case types.MethodType():
                yield from (self.of(thing.__func__), self.of(thing.__self__))
            case types.CodeType():
                yield from self._code(thing)
            case property():
                yield from (self.of(f) for f in (thing.fget, thing.fset))
            case staticmethod() | classmethod() | functools._lru_cache_wrapper():
                yield type(thing).__qualname__
                yield self.of(thing.__wrapped__)
            case type():
                yield from self._class(thing)
            case Enum() | np.generic() | PurePath() | torch.dtype() | torch.Size():
                yield f"{type(thing).__qualname__} {thing!s}"
            case types.ModuleType() | types.BuiltinFunctionType() | torch.device() | torch.Generator():
                yield _name(thing)  # a device is a location, not content
            case _:
                yield from self.attributes(thing)

    def attributes(self, thing: Any, without: Iterable[str] = ()) -> Iterator[str]:
        """An object's class and attributes; of a library object the public ones that are data or functions."""
        cls: Any = type(thing)
        foreign, transient = is_foreign(cls), state(cls)
        slots = [s for c in cls.__mro__ for s in _listed(vars(c).get("__slots__", ()))]
        held = {s: getattr(thing, s) for s in slots if not s.startswith("__") and hasattr(thing, s)} | getattr(
            thing, "__dict__", {}
        )
        held = {k: v for k, v in held.items() if k not in without and k not in transient}
        if foreign:
            held = {k: v for k, v in held.items() if not k.startswith("_") and _is_data(v)}
        with suppress(RuntimeError):
            if isinstance(thing, (nn.Module, torch.jit.ScriptFunction)) and isinstance(getattr(thing, "code", None), str):
                yield str(thing.code)  # a scripted or traced network is not defined by its class
        yield self.of(cls)
        for name, value in sorted(held.items()):
            yield f"{name} {self.of(value)}"

    def _function(self, f: types.FunctionType) -> Iterator[str]:
        """A function's code and everything that it refers to."""
        code = f.__code__
        for name, cell in zip(code.co_freevars, f.__closure__ or (), strict=True):
            with suppress(ValueError):  # an empty cell
                yield name if name in stored(code, "STORE_DEREF") else f"{name} {self.of(cell.cell_contents)}"
        yield from (self.of(f.__defaults__), self.of(f.__kwdefaults__))
        if is_library(code.co_filename):
            yield f"{version(f.__globals__.get('__name__'))} {code.co_qualname}"
            return
        transient = stored(code, "STORE_ATTR", "STORE_GLOBAL") | {"__wrapped__"}
        yield from (self.of(code), self.of({k: v for k, v in vars(f).items() if k not in transient}))
        for name, attributes in sorted(lookups(code).items()):
            if name in f.__globals__ and name not in transient:
                yield from self._looked_up(name, f.__globals__[name], attributes)

    def _looked_up(self, name: str, value: object, attributes: set[str]) -> Iterator[str]:
        """The value of a global name; of another module of the user's only the attributes that the function may read."""
        if isinstance(value, types.ModuleType) and not is_foreign_module(value):
            for a in sorted(attributes & vars(value).keys()):
                yield from self._looked_up(f"{name}.{a}", vars(value)[a], attributes - {a})
        else:
            yield f"{name} {self.of(value)}"

    def _code(self, code: types.CodeType) -> Iterator[str]:
        """Bytecode with its constants and names; its position in the file does not count."""
        yield from (
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            repr(code.co_names),
            f"{code.co_argcount} {code.co_flags}",
        )
        yield from (self.of(c) for c in code.co_consts)

    def _class(self, cls: type) -> Iterator[str]:
        """Methods and attributes of a class and its base classes."""
        for c in cls.__mro__:
            if is_foreign(c):
                yield f"{version(c.__module__)} {c.__qualname__}"
                continue
            yield c.__qualname__
            for name, value in sorted(vars(c).items()):
                magic = name.startswith("__") and name.endswith("__")
                if not isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType)) and (
                    not magic or isinstance(value, (types.FunctionType, staticmethod, classmethod))
                ):
                    yield f"{name} {self.of(value)}"


def _is_data(value: object) -> bool:
    """Whether a library object's attribute counts: plain values, tensors, functions, and collections of them."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, value.values()))
    return isinstance(
        value, (*_PLAIN, Tensor, np.ndarray, np.generic, types.FunctionType, functools.partial, Enum, torch.dtype)
    )


def _name(thing: object) -> str:
    """An object's name if it has one, after the name of its type."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return f"{type(thing).__qualname__} {name if isinstance(name, str) else ''}"


def _listed(slots: str | Iterable[str]) -> Iterable[str]:
    """Names of slots as a sequence; a single slot may be declared as a string."""
    return (slots,) if isinstance(slots, str) else slots
