"""How long what is left will take, by what was done lately."""

import statistics
from collections import deque

_SPANS = 9  # that the median is of: robust against one that was slow, and soon over what began fast


class Pace:
    """Learns from steps as they are done: seconds a step is the median over the last stretches, which take equal times.

    What begins fast and grows slower (eigenvalues far from a minimum, a machine that others come to use) is told from its
    last stretches, not from its beginning; a pause in one of them changes nothing.

    Args:
        now: time at which the work begins, in seconds.
        span: seconds of a stretch, at least; a longer step makes a longer one.

    Example:
        >>> pace = Pace(0.0, span=1.0)
        >>> for second in range(1, 11):
        ...     pace.add(5, float(second))
        >>> for second in range(20, 120, 10):
        ...     pace.add(5, float(second))
        >>> pace.left(100)
        200.0
    """

    def __init__(self, now: float, span: float = 2.0) -> None:
        self._span = span
        self._begun, self._from, self._steps, self._all = now, now, 0, 0
        self._now = now
        self._rates: deque[float] = deque(maxlen=_SPANS)

    def add(self, steps: int, now: float) -> None:
        """So many more steps are done at this time."""
        self._steps += steps
        self._all += steps
        self._now = now
        if self._steps > 0 and now - self._from >= self._span:
            self._rates.append((now - self._from) / self._steps)
            self._from, self._steps = now, 0

    def left(self, steps: int) -> float | None:
        """Seconds for so many steps; None before any is done."""
        if self._rates:
            return statistics.median(self._rates) * steps
        return (self._now - self._begun) / self._all * steps if self._all else None
