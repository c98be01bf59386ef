"""Import torchvision even on machines where its compiled operators are missing.

torchvision's wheel is built against the CUDA build of torch. With a CPU-only torch its library of detection operators does not
load, and `torchvision/_meta_registrations.py` fails because it registers shape functions for operators that do not exist.
Models, data sets and transforms do not need these operators, so such registrations are skipped during the import. All modules
use `from landscape.tasks.torchvision_import import torchvision`.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch.library

from landscape.errors import UsageError, first_line

_MISSING = "does not exist"


@contextmanager
def tolerating_missing_operators() -> Iterator[None]:
    """Inside the block, `torch.library.register_fake` skips operators that do not exist; all other errors are raised.

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
    """torchvision, or a UsageError with the reason why it cannot be imported."""
    try:
        with tolerating_missing_operators():
            return importlib.import_module("torchvision")
    except ImportError as error:
        raise UsageError(
            f"expected an installed torchvision, found: {error}",
            fix="install the version that fits your torch: pip install -c constraints.txt torch torchvision",
        ) from error


torchvision: Any = _import()


def installed(library: str, form: str) -> Any:
    """Another optional library of models; those of them that import torchvision find it imported with the care above.

    Args:
        library: the module, and its name for pip.
        form: the option that asks for it, such as "timm:NAME".

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UsageError(
            f"expected the library {library} for {form}, found {first_line(error)}", fix=f"pip install {library}"
        ) from error
