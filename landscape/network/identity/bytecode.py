"""Facts about a function that its bytecode shows: the names it reads and sets, and whether it belongs to a library."""

import dis
import functools
import sys
import sysconfig
import types
from pathlib import Path

_LIBRARIES = tuple(Path(p) for k, p in sysconfig.get_paths().items() if k in ("stdlib", "platstdlib", "purelib", "platlib"))


def lookups(code: types.CodeType) -> dict[str, set[str]]:
    """Global names that a function or a nested function reads, each with the names of all attributes that it reads."""
    nested = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    result = {n: set(code.co_names) for n in names}
    for inner in nested:
        for n, attributes in lookups(inner).items():
            result[n] = result.get(n, set()) | attributes
    return result


def stored(code: types.CodeType, *operations: str) -> set[str]:
    """Names that a function or a nested function sets."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in operations}
    return names.union(*(stored(c, *operations) for c in code.co_consts if isinstance(c, types.CodeType)))


@functools.cache
def state(cls: type) -> frozenset[str]:
    """Attributes that a call of an object sets, in `__call__`, `forward`, or methods whose names these use."""
    todo, seen, attributes = ["__call__", "forward"], set[str](), set[str]()
    while todo:
        name = todo.pop()
        method = next((vars(c)[name] for c in cls.__mro__ if name in vars(c)), None)
        if name not in seen and isinstance(method, types.FunctionType):
            todo += method.__code__.co_names
            attributes |= stored(method.__code__, "STORE_ATTR")
        seen.add(name)
    return frozenset(attributes)


def is_foreign(cls: type) -> bool:
    """Whether a class belongs to Python or a library."""
    module = sys.modules.get(cls.__module__)
    return module is not None and cls.__module__ != "__main__" and is_foreign_module(module)


def is_foreign_module(module: types.ModuleType) -> bool:
    """Whether a module belongs to Python or a library; a namespace package is located by its folder."""
    return is_library(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None))


@functools.cache
def is_library(file: str | None) -> bool:
    """Whether a file belongs to Python or an installed library; landscape's own files never do, however it was installed."""
    if file is None or file.startswith("<frozen"):
        return True
    path = Path(file)
    if Path(__file__).parents[2] in path.parents:
        return False
    return {"site-packages", "dist-packages"} & set(path.parts) != set() or any(p in path.parents for p in _LIBRARIES)


def version(module: str | None) -> str:
    """Name of a library module with the library's version; torch's version is recorded elsewhere and omitted."""
    top = (module or "").partition(".")[0]
    return f"{module} {'' if top == 'torch' else getattr(sys.modules.get(top), '__version__', '')}"
