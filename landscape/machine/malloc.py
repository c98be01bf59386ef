"""How the C library treats freed memory: kept for the next tensor, or returned to the system.

Derivatives of a network allocate and free some MiB at every layer. A page that was returned must be cleared and mapped again
when it is next written: some 30,000 pages in a Hessian-vector product of ResNet-20 with 256 images on two threads, a tenth of
its time. Only glibc is configured; other C libraries are left as they are.

Reference: mallopt(3).
"""

import ctypes
import os
import sys
from contextlib import suppress
from threading import Lock

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameter numbers in malloc.h
# Blocks larger than _MAPPED get their own mapping and are unmapped when freed; 32 MiB is the largest value that glibc accepts.
# Up to _KEPT bytes of free memory stay at the end of the heap.
_MAPPED, _KEPT = 32 << 20, 1 << 30
_TIGHT = 1 << 20  # both thresholds when memory is tight
_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")

_lock, _setting = Lock(), ""  # the last setting made


def keep_freed() -> None:
    """From now on keep freed blocks of up to 32 MiB in the heap for the next tensors, and up to 1 GiB at its end.

    No effect after `return_freed`, or if the user configured glibc (MALLOC_TRIM_THRESHOLD_ and the like).
    """
    users = any(name in os.environ for name in _USERS) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    with _lock:
        if not users and not _setting:
            _set("keep", _MAPPED, _KEPT)


def return_freed() -> None:
    """From now on return blocks of 1 MiB and more to the system when they are freed. Products take up to a third longer."""
    with _lock:
        if _setting != "return":
            _set("return", _TIGHT, _TIGHT)


def give_back() -> None:
    """Return the memory that is free now to the system, once; what is freed later is kept as before.

    After work whose tensors are of other sizes than those that follow, whose places in the heap these cannot take.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _set(what: str, mapped: int, kept: int) -> None:
    """Set both thresholds, in bytes."""
    global _setting
    _setting = what
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, mapped)
            library.mallopt(_TRIM_THRESHOLD, kept)
            if what == "return":
                library.malloc_trim(0)
