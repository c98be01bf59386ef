"""Results apart from all that others print: a network, a loss or a library that prints must not end up in the document."""

import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

_STDOUT, _STDERR = 1, 2


@contextmanager
def apart() -> Iterator[TextIO]:
    """Yield a stream to what was standard output; whatever prints in the block, in Python, in C or in a child, goes to stderr.

    At the end of the block all is as it was, unless standard output is the process's own: a process that is about to end
    goes on printing to stderr, so that what is left in a buffer of C, or printed at exit, does not follow the document.
    """
    before, here = sys.stdout, sys.stdout is sys.__stdout__
    before.flush()
    try:
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # one of them is closed
        yield before
        return
    own = _stream_to(kept, before) if _number(before) == _STDOUT else before
    try:
        with redirect_stdout(sys.stderr):
            yield own
            with suppress(BrokenPipeError):
                own.flush()
    finally:
        if not here:
            with suppress(OSError, ValueError):
                before.flush()
            with suppress(OSError, AttributeError, TypeError):
                ctypes.CDLL(None).fflush(None)
            os.dup2(kept, _STDOUT)
        else:
            sys.stdout = sys.stderr
        if own is not before:
            _give_up(own)
        else:
            os.close(kept)


def _number(stream: TextIO) -> int | None:
    """Number of the file that a stream writes to; None for one in memory."""
    with suppress(OSError, ValueError, AttributeError):
        return stream.fileno()
    return None


def _stream_to(number: int, like: TextIO) -> TextIO:
    """A stream to an open file, encoded as another one; what its encoding lacks is spelt out."""
    encoding = getattr(like, "encoding", None) or "utf-8"
    return open(number, "w", encoding=encoding, errors="backslashreplace", newline=None)  # closed by `apart`


def _give_up(stream: TextIO) -> None:
    """Close a stream that may be broken: what it still holds goes nowhere."""
    try:
        stream.close()
    except (OSError, io.UnsupportedOperation):
        with suppress(OSError, ValueError):
            stream.close()
