"""Progress reports from long computations.

A long computation is wrapped as `with progress.stage("trace", total=64) as advance: ... advance(8)`. Without a listener this
does nothing; the command line listens, and draws a bar with an ETA. The listener is held in a context variable, so that
solvers need no argument for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Receiver of progress reports; the command line implements it."""

    def start(self, label: str, total: int | None) -> int:
        """Begin a stage and return its handle. `total` is an upper bound on its steps, None if unknown."""

    def advance(self, handle: int, steps: int) -> None:
        """Record `steps` more steps of the stage."""

    def finish(self, handle: int) -> None:
        """End the stage, perhaps before its bound."""

    def remark(self, text: str) -> None:
        """Show a remark about the work."""

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        """A better estimate of the stage's remaining time than its steps give, with its range; nan if nobody knows."""


class Advance:
    """Reports the progress of one stage; call it with the number of steps done.

    Args:
        listener, handle: of the stage; None without a listener.
    """

    def __init__(self, listener: Listener | None, handle: int = 0) -> None:
        self._listener, self._handle = listener, handle

    def __call__(self, steps: int) -> None:
        """Report `steps` more steps."""
        if self._listener is not None:
            self._listener.advance(self._handle, steps)

    def left(self, seconds: float, low: float, high: float) -> None:
        """Report the stage's remaining time, where it is known better than from its steps."""
        if self._listener is not None:
            self._listener.left(self._handle, seconds, low, high)


class _Heard:
    """Forwards to a listener, and calls `tick` at every step."""

    def __init__(self, listener: Listener, tick: Callable[[], None]) -> None:
        self._listener, self._tick = listener, tick
        self.start, self.finish, self.remark, self.left = listener.start, listener.finish, listener.remark, listener.left

    def advance(self, handle: int, steps: int) -> None:
        self._tick()
        self._listener.advance(handle, steps)


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Report every stage inside the block to `listener`; None reports to nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(label: str, total: int | None = None) -> Iterator[Advance]:
    """A stage of at most `total` steps; yields the function that reports how many more steps are done."""
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
    """Call `tick` at every step of every stage in the block; does nothing without a listener."""
    listener = _listener.get()
    with listening(None if listener is None else _Heard(listener, tick)):
        yield


def remark(text: str) -> None:
    """Show a remark about the work, such as that part of it was already done."""
    listener = _listener.get()
    if listener is not None:
        listener.remark(text)


def duration(seconds: float) -> str:
    """A duration as text for people.

    Example:
        >>> duration(0.0042), duration(0.25), duration(2.5), duration(40), duration(720), duration(5400)
        ('4.2 ms', '250 ms', '2.5 s', '40 s', '12 min', '1.5 h')
    """
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
