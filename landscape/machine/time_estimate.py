"""Remaining time of a computation, estimated from its recent steps."""

import statistics
from collections import deque

_SPANS = 9  # stretches in the median: robust against a single slow one, and quick to follow a change of speed


class Pace:
    """Estimates the time per step as the median over the latest stretches of equal duration.

    Work that grows slower (eigenvalues far from a minimum, a machine that others start to use) is judged by its latest
    stretches, not by its beginning. A pause in a single stretch changes nothing.

    Args:
        now: time at which the work begins, in seconds.
        span: shortest duration of a stretch, in seconds; a longer step makes a longer stretch.

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
        """Record that `steps` more steps were done by the time `now`."""
        self._steps += steps
        self._all += steps
        self._now = now
        if self._steps > 0 and now - self._from >= self._span:
            self._rates.append((now - self._from) / self._steps)
            self._from, self._steps = now, 0

    def left(self, steps: int) -> float | None:
        """Seconds that `steps` more steps will take; None before the first step."""
        if self._rates:
            return statistics.median(self._rates) * steps
        return (self._now - self._begun) / self._all * steps if self._all else None
