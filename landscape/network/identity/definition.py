"""What functions, objects and layers are, as hashes that are the same in every process: code, settings and tensors."""

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
_MODULE = set(vars(nn.Module())) | {"training"}  # torch's own bookkeeping in every layer
_DEPTH = 60  # of functions in objects in functions; real ones have a handful


def definition(thing: object) -> str:
    """SHA-256 of a function, an object, a class, a module or a plain value.

    A function counts with its bytecode and constants, defaults, attributes, what it closes over, and what it looks up by name
    in its module, or in another of the user's modules; an object with its attributes and its class; a class with its methods
    and attributes, also inherited ones; a layer as `layers` has it, and its tensors; a tensor with dtype, shape and bytes.
    What comes from a library counts by name, with the library's version (but torch's and Python's, which belong beside the
    hash), and its plain settings. Comments and names of local variables do not count.

    Conventions: what calling a function or an object sets, such as counters, is its state and does not count.

    Accuracy: bytecode differs between versions of Python. What cannot be looked into (compiled extensions, open files, random
        generators, what is nested more than 60 deep) counts by the name of its type alone, and code that is found only while
        it runs (by `getattr` with a computed name, or in a registry of a library) is not seen.

    Cost: one reading of all tensors that it holds.

    Example:
        >>> twice = definition(lambda x: 2 * x)
        >>> twice == definition(lambda y: 2 * y), twice == definition(lambda x: 3 * x)
        (True, False)
    """
    return _Definitions().of(thing)


def layers(module: nn.Module) -> Iterator[str]:
    """Every layer of a network: name, type, settings, and the code of classes that are not a library's; no tensors of it.

    `repr` would leave out many settings, such as label smoothing.
    """
    known = _Definitions()
    own = [*module.named_modules()]
    for name, layer in own:
        known.name(layer, f"layer {name}")  # one that is held twice, or knows its parent, is named there and not opened
    for name, layer in own:
        yield f"{name}: {type(layer).__qualname__}"
        yield from known.attributes(layer, _MODULE)


class _Definitions:
    """Definitions of things that may hold one another, in circles too."""

    def __init__(self) -> None:
        self._path: list[object] = []  # what is being described: inside itself a thing is its distance
        self._known: dict[int, tuple[object, str]] = {}  # with the thing itself, so that its id is not given away

    def name(self, thing: object, text: str) -> None:
        """Let a text stand for a thing wherever it is held."""
        self._known[id(thing)] = thing, sha256([text])

    def of(self, thing: object) -> str:
        """The hash of one thing."""
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
            found = sha256(self._pieces(thing))
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
            found = sha256([f"closed {_name(thing)}"])  # such as a tensor inside a transformation, which has no bytes
        self._path.pop()
        self._known[id(thing)] = thing, found
        return found

    def _pieces(self, thing: Any) -> Pieces:
        """What a thing is made of."""
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
                yield _name(thing)  # a device is where, not what
            case _:
                yield from self.attributes(thing)

    def attributes(self, thing: Any, without: Iterable[str] = ()) -> Iterator[str]:
        """An object's class and attributes; of a library's those that anybody may set, as far as they are data or functions."""
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
                yield str(thing.code)  # of a scripted or traced network, whose class says nothing
        yield self.of(cls)
        for name, value in sorted(held.items()):
            yield f"{name} {self.of(value)}"

    def _function(self, f: types.FunctionType) -> Iterator[str]:
        """A function's code and all that it refers to."""
        code = f.__code__
        for name, cell in zip(code.co_freevars, f.__closure__ or (), strict=True):
            with suppress(ValueError):  # not filled yet
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
        """What a function finds under a name; in another of the user's modules, only what it may read there."""
        if isinstance(value, types.ModuleType) and not is_foreign_module(value):
            for a in sorted(attributes & vars(value).keys()):
                yield from self._looked_up(f"{name}.{a}", vars(value)[a], attributes - {a})
        else:
            yield f"{name} {self.of(value)}"

    def _code(self, code: types.CodeType) -> Iterator[str]:
        """Bytecode as it was compiled, with its constants and names; where it stands in its file does not count."""
        yield from (
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            repr(code.co_names),
            f"{code.co_argcount} {code.co_flags}",
        )
        yield from (self.of(c) for c in code.co_consts)

    def _class(self, cls: type) -> Iterator[str]:
        """Methods and attributes of a class and of those that it inherits from."""
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
    """Whether a library's attribute is looked at: plain values, tensors, functions, and lots of them."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(map(_is_data, value.values()))
    return isinstance(
        value, (*_PLAIN, Tensor, np.ndarray, np.generic, types.FunctionType, functools.partial, Enum, torch.dtype)
    )


def _name(thing: object) -> str:
    """The name of a thing that has one, else its type's."""
    own = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return f"{type(thing).__qualname__} {own if isinstance(own, str) else ''}"


def _listed(slots: str | Iterable[str]) -> Iterable[str]:
    """Names of slots, of which a single one may be given as a text."""
    return (slots,) if isinstance(slots, str) else slots
