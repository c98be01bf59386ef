"""What the C library does with memory that is freed: keeps it for the next tensor, or gives it back to the system.

Derivatives of a network allocate and free some MiB at every layer. A page that is given back is cleared and mapped again when
it is next written: 36,000 pages in a Hessian-vector product of ResNet-20 with 256 images, an eighth of its time. Other C
libraries are left as they are, and nothing is kept where the environment says what glibc is to do (MALLOC_TRIM_THRESHOLD_ and
its like).

Reference: mallopt(3).
"""

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
# Blocks above the one are mapped, and unmapped when they are freed: 32 MiB is the most that glibc takes. Of what is free at the
# end of the heap the other is kept.
_MAPPED, _KEPT = 32 << 20, 1 << 30
_TIGHT = 1 << 20  # both, where memory is tight


@cache
def keep_freed() -> None:
    """Have up to 1 GiB of freed memory kept for the next tensors, from now on; nothing after `return_freed`."""
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if not told and not return_freed.cache_info().currsize:
        _tell(_MAPPED, _KEPT)


@cache
def return_freed() -> None:
    """Have blocks of 1 MiB and more given back when they are freed, from now on. Products take up to a third longer."""
    library = _tell(_TIGHT, _TIGHT)
    if library is not None:
        library.malloc_trim(0)


def _tell(mapped: int, kept: int) -> ctypes.CDLL | None:
    """Set both thresholds, in bytes; None where this is another C library."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, mapped)
            library.mallopt(_TRIM_THRESHOLD, kept)
            return library
    return None
