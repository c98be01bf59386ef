"""torchvision, imported on machines where its compiled operators are missing.

torchvision's wheel is built against the CUDA build of torch. Beside a CPU-only torch its library of detection operators does
not load, and `torchvision/_meta_registrations.py` then fails: it registers shape functions for operators that do not exist.
Models, data sets and transforms are plain Python and need none of them. So while torchvision is imported, and only then, such a
registration is skipped. `from landscape.tasks.torchvision_import import torchvision` is the one way in for the toolkit.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch.library

from landscape.errors import UsageError

_MISSING = "does not exist"


@contextmanager
def tolerating_missing_operators() -> Iterator[None]:
    """Inside the block, `torch.library.register_fake` skips operators that do not exist; every other error passes through.

    Example:
        >>> with tolerating_missing_operators():
        ...     shape = torch.library.register_fake("no_library::no_operator")(lambda x: x)
        >>> shape(3)
        3
    """
    original = torch.library.register_fake

    def register_fake(op: Any, func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        def register(f: Callable[..., Any]) -> Callable[..., Any]:
            try:
                original(op, f, **options)
            except RuntimeError as error:
                if _MISSING not in str(error):
                    raise
            return f

        return register if func is None else register(func)

    torch.library.register_fake = register_fake
    try:
        yield
    finally:
        torch.library.register_fake = original


def _import() -> ModuleType:
    """torchvision, or one line that says what is wrong with it."""
    try:
        with tolerating_missing_operators():
            return importlib.import_module("torchvision")
    except ImportError as error:
        raise UsageError(
            f"expected an installed torchvision, found: {error}",
            fix="install the one that goes with your torch: pip install -c constraints.txt torch torchvision",
        ) from error


torchvision: Any = _import()
