"""Progress of long computations in Python: a line that is renewed, in a notebook or on a terminal."""

import importlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from landscape.machine.progress import duration, listening
from landscape.machine.time_estimate import Pace

_CELLS = 24  # of the bar
_SECONDS = 0.1  # between two renewals

Show = Callable[[str], None]


@contextmanager
def progress(file: TextIO | None = None) -> Iterator[None]:
    """Show how far the work inside the block is, in one line: stage, bar, steps, and the time that is left at most.

    In a notebook the line stands below the cell, and in the end says how long it took. Elsewhere it goes to stderr. The command
    line has bars of its own.

    Args:
        file: where the line goes; default: the notebook's output, or stderr.

    Example:
        `with ls.progress(): table = ls.sharpness(objective)`
    """
    begun, line = time.monotonic(), _Line(_notebook() if file is None and _in_notebook() else _terminal(file or sys.stderr))
    try:
        with listening(line):
            yield
    finally:
        line.end(time.monotonic() - begun)


class _Line:
    """A listener that shows the stage that advanced last."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._stages: dict[int, tuple[str, int | None, int, Pace]] = {}
        self._last = 0
        self._shown = -_SECONDS

    def start(self, label: str, total: int | None) -> int:
        self._last += 1
        self._stages[self._last] = (label, total, 0, Pace(time.monotonic()))
        return self._last

    def advance(self, handle: int, steps: int) -> None:
        label, total, done, pace = self._stages[handle]
        done, now = done + steps, time.monotonic()
        self._stages[handle] = (label, total, done, pace)
        pace.add(steps, now)
        left = None if total is None else pace.left(max(total - done, 0))
        around = "".join(
            f"{outer} {before} of {bound}, " for h, (outer, bound, before, _) in self._stages.items() if h < handle and bound
        )
        self._renew(f"{around}{label}: {_bar(done, total)}" + ("" if left is None else f", at most {duration(left)} left"))

    def finish(self, handle: int) -> None:
        del self._stages[handle]

    def remark(self, text: str) -> None:
        self._show(text)

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        if math.isnan(seconds):
            return  # the search that runs shows its evaluations
        self._renew(f"{self._stages[handle][0]}: about {duration(seconds)} left ({duration(low)} to {duration(high)})")

    def _renew(self, text: str) -> None:
        """Show a line, unless another one was shown just now."""
        if (now := time.monotonic()) - self._shown >= _SECONDS:
            self._shown = now
            self._show(text)

    def end(self, seconds: float) -> None:
        """The last line."""
        self._show(f"done in {duration(seconds)}\n")


def _bar(done: int, total: int | None) -> str:
    """Steps done, with a bar if their number is known."""
    if not total:
        return str(done)
    full = min(_CELLS, _CELLS * done // total)
    return f"{'█' * full}{'·' * (_CELLS - full)} {done} of at most {total}"


def _terminal(file: TextIO) -> Show:
    """A line that overwrites itself."""
    width = 0

    def show(text: str) -> None:
        nonlocal width
        file.write(f"\r{text.rstrip():{width}}" + ("\n" if text.endswith("\n") else ""))
        file.flush()
        width = len(text)

    return show


def _in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _notebook() -> Show:
    """An output of the cell that is renewed."""
    handle = importlib.import_module("IPython.display").display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text.rstrip()}, raw=True)
