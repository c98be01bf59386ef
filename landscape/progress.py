"""How long work tells whoever watches that it is getting on.

Code that does long work wraps it: `with progress.stage("trace", total=64) as advance: ... advance(8)`. Nothing happens
unless somebody listens; the command line does, and draws a bar with an ETA. A context variable carries the listener, so that
solvers need no argument for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """What the command line implements."""

    def start(self, label: str, total: int | None) -> int:
        """A stage begins; returns a handle. `total` is an upper bound of its steps, None if unknown."""

    def advance(self, handle: int, steps: int) -> None:
        """`steps` more steps of the stage are done."""

    def finish(self, handle: int) -> None:
        """The stage is over, perhaps before its bound."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report every stage inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A stretch of work of at most `total` steps; yields the function that says how many more are done."""
    listener = _listener.get()
    if listener is None:
        yield lambda steps: None
        return
    handle = listener.start(label, total)
    try:
        yield lambda steps: listener.advance(handle, steps)
    finally:
        listener.finish(handle)
