"""Keep results apart from other output: text that a network, a loss or a library prints must not get into the document."""

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
    """Yield a stream to the original stdout, and send everything that Python, C code or a child prints to stderr meanwhile.

    At the end of the block stdout is restored if it had been replaced, as tests do. If it is the process's own, it stays
    redirected to stderr: text left in a C buffer, or printed at exit, then does not follow the document.
    """
    before, here = sys.stdout, sys.stdout is sys.__stdout__
    before.flush()
    try:
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # stdout or stderr is closed
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
    """The file descriptor that a stream writes to; None for a stream in memory."""
    with suppress(OSError, ValueError, AttributeError):
        return stream.fileno()
    return None


def _stream_to(number: int, like: TextIO) -> TextIO:
    """A stream to a file descriptor, with the encoding of `like`; characters that it lacks are escaped."""
    encoding = getattr(like, "encoding", None) or "utf-8"
    return open(number, "w", encoding=encoding, errors="backslashreplace", newline=None)  # closed by `apart`


def _give_up(stream: TextIO) -> None:
    """Close a stream that may be broken; its unwritten text is dropped."""
    try:
        stream.close()
    except (OSError, io.UnsupportedOperation):
        with suppress(OSError, ValueError):
            stream.close()
