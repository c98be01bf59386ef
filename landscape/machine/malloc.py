"""What the C library does with memory that is freed: keeps it for the next tensor, or gives it back to the system.

Derivatives of a network allocate and free some MiB at every layer. A page that is given back is cleared and mapped again when
it is next written: some 30,000 pages in a Hessian-vector product of ResNet-20 with 256 images on two threads, a tenth of its
time. This is about glibc; other C libraries are left as they are.

Reference: mallopt(3).
"""

import ctypes
import os
import sys
from contextlib import suppress
from threading import Lock

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
# Blocks above the one are mapped, and unmapped when they are freed: 32 MiB is the most that glibc takes. Of what is free at the
# end of the heap the other is kept.
_MAPPED, _KEPT = 32 << 20, 1 << 30
_TIGHT = 1 << 20  # both, where memory is tight
_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")

_lock, _told = Lock(), ""  # what the library was told last


def keep_freed() -> None:
    """Have freed blocks of up to 32 MiB stay in the heap for the next tensors, and up to 1 GiB at its end, from now on.

    Nothing changes after `return_freed`, nor where the user told glibc what to do (MALLOC_TRIM_THRESHOLD_ and its like).
    """
    users = any(name in os.environ for name in _USERS) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    with _lock:
        if not users and not _told:
            _tell("keep", _MAPPED, _KEPT)


def return_freed() -> None:
    """Have blocks of 1 MiB and more given back when they are freed, from now on. Products take up to a third longer."""
    with _lock:
        if _told != "return":
            _tell("return", _TIGHT, _TIGHT)


def _tell(what: str, mapped: int, kept: int) -> None:
    """Set both thresholds, in bytes."""
    global _told
    _told = what
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, mapped)
            library.mallopt(_TRIM_THRESHOLD, kept)
            if what == "return":
                library.malloc_trim(0)
