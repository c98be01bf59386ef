"""Progress reports from long computations.

A long computation is wrapped as `with progress.stage("trace", total=64) as advance: ... advance(8)`. Without a listener this
does nothing; the command line listens, and draws a bar with an ETA. The listener is held in a context variable, so that
solvers need no argument for it.
"""

import math
import time
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

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return self._listener is not None

    def __call__(self, steps: int) -> None:
        """Report `steps` more steps."""
        if self._listener is not None:
            self._listener.advance(self._handle, steps)

    def left(self, seconds: float, low: float, high: float) -> None:
        """Report the stage's remaining time, where it is known better than from its steps."""
        if self._listener is not None:
            self._listener.left(self._handle, seconds, low, high)


Told = Callable[[float, float, float], None]


class _Heard:
    """Forwards to a listener; calls `tick` at every step, and `told` with the remaining time that a stage inside reports.

    A stage inside others is taken for one of their steps: the steps to come take as long as it does.
    """

    def __init__(self, listener: Listener, tick: Callable[[], None], told: Told | None) -> None:
        self._listener, self._tick, self._told = listener, tick, told
        self._open: dict[int, tuple[float, int]] = {}  # when each stage began, and its steps to come
        self.remark = listener.remark

    def start(self, label: str, total: int | None) -> int:
        handle = self._listener.start(label, total)
        self._open[handle] = (time.monotonic(), total or 1)
        return handle

    def finish(self, handle: int) -> None:
        self._open.pop(handle, None)
        self._listener.finish(handle)

    def advance(self, handle: int, steps: int) -> None:
        if handle in self._open:
            begun, left = self._open[handle]
            self._open[handle] = (begun, left - steps)
        self._tick()
        self._listener.advance(handle, steps)

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        if self._told is not None and handle in self._open and not math.isnan(seconds):
            self._told(*self._of_all(handle, (seconds, low, high)))
        self._listener.left(handle, seconds, low, high)

    def _of_all(self, handle: int, left: tuple[float, float, float]) -> list[float]:
        """The remaining time of the outermost stage, from that of one inside it."""
        now, known = time.monotonic(), list(self._open)
        out = list(left)
        for inner in reversed(known[1 : known.index(handle) + 1]):
            begun, _ = self._open[inner]
            _, steps = self._open[known[known.index(inner) - 1]]
            out = [x + max(steps - 1, 0) * (now - begun + x) for x in out]
        return out


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
def ticking(tick: Callable[[], None], told: Told | None = None) -> Iterator[None]:
    """Call `tick` at every step of every stage in the block; does nothing without a listener.

    Args:
        tick: called without arguments.
        told: called with the remaining seconds, likely, at least and at most, as often as a stage in the block reports them.
    """
    listener = _listener.get()
    with listening(None if listener is None else _Heard(listener, tick, told)):
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
