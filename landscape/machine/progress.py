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

    def remark(self, text: str) -> None:
        """Something about the work that whoever watches should know."""

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        """A better estimate of the time that a stage still takes than its steps give, with its range."""


class Advance:
    """What a stage yields: called with the number of steps that are done.

    Args:
        listener, handle: of the stage; None where nobody listens.
    """

    def __init__(self, listener: Listener | None, handle: int = 0) -> None:
        self._listener, self._handle = listener, handle

    def __call__(self, steps: int) -> None:
        """So many more steps are done."""
        if self._listener is not None:
            self._listener.advance(self._handle, steps)

    def left(self, seconds: float, low: float, high: float) -> None:
        """What the stage still takes, by whoever knows better than its steps."""
        if self._listener is not None:
            self._listener.left(self._handle, seconds, low, high)


class _Heard:
    """A listener, and somebody else who is told of every step."""

    def __init__(self, listener: Listener, tick: Callable[[], None]) -> None:
        self._listener, self._tick = listener, tick
        self.start, self.finish, self.remark, self.left = listener.start, listener.finish, listener.remark, listener.left

    def advance(self, handle: int, steps: int) -> None:
        self._tick()
        self._listener.advance(handle, steps)


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Report every stage inside the block to `listener`; None: to nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(label: str, total: int | None = None) -> Iterator[Advance]:
    """A stretch of work of at most `total` steps; yields the function that says how many more are done."""
    listener = _listener.get()
    if listener is None:
        yield Advance(None)
        return
    handle = listener.start(label, total)
    try:
        yield Advance(listener, handle)
    finally:
        listener.finish(handle)


@contextmanager
def ticking(tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` at every step of every stage in the block; where nobody listens nothing happens."""
    listener = _listener.get()
    with listening(None if listener is None else _Heard(listener, tick)):
        yield


def remark(text: str) -> None:
    """Say something about the work to whoever watches, such as that a part of it was there already."""
    listener = _listener.get()
    if listener is not None:
        listener.remark(text)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    Example:
        >>> duration(0.0042), duration(0.25), duration(2.5), duration(40), duration(720), duration(5400)
        ('4.2 ms', '250 ms', '2.5 s', '40 s', '12 min', '1.5 h')
    """
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
