"""Shapes in annotations, checked by jaxtyping and beartype while testing: every call of a kind that was not seen before.

A check takes longer than most of the functions do, and its answer hangs on nothing but the kinds, shapes and dtypes of what
comes in and goes out. So each function is checked for each of these once a process; a check that fails is not remembered.
"""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jaxtyping
import numpy as np
import torch

ARRAYS = (torch.Tensor, np.ndarray)
whole = jaxtyping.jaxtyped


def install(modules: list[str]) -> None:
    """Check all functions and dataclasses of these modules, which must not have been imported yet."""
    jaxtyping.jaxtyped = decorator
    jaxtyping.install_import_hook(modules, "beartype.beartype").__enter__()


def decorator(*, typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`jaxtyping.jaxtyped`, which its import hook puts on every function and dataclass."""

    def decorated(what: Any) -> Any:
        return once_a_kind(what, typechecker) if inspect.isfunction(what) else whole(typechecker=typechecker)(what)

    return decorated


def once_a_kind(function: Callable[..., Any], typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function, checked whole where what it is given, or what it returns for that, is of a kind not seen before."""
    seen: dict[Hashable, set[Hashable]] = {}
    checked = whole(typechecker=typechecker)(function)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = kind(args), kind(kwargs)
        if given not in seen:
            out = checked(*args, **kwargs)
            seen[given] = {kind(out)}
            return out
        out = function(*args, **kwargs)
        if (returned := kind(out)) not in seen[given]:
            again = functools.wraps(function)(lambda *_args, **_kwargs: out)
            whole(typechecker=typechecker)(again)(*args, **kwargs)
            seen[given].add(returned)
        return out

    return called


def kind(what: Any) -> Hashable:
    """All that an annotation can ask for: shape and dtype of an array, words, and the type of anything else, items included."""
    if isinstance(what, ARRAYS):
        return type(what), what.shape, what.dtype
    if isinstance(what, str):
        return what
    if isinstance(what, dict):
        return dict, tuple(what), tuple(map(kind, what.values()))
    if isinstance(what, tuple | list):
        return type(what), tuple(map(kind, what))
    return type(what)
