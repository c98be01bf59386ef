"""When to check: every so many steps, and seldom enough to keep to a share of the time."""

import math
import time
from collections import deque

from landscape.errors import UsageError


class Pace:
    """The steps at which a training run is checked.

    A check is due `every` steps after the last one. With a budget it also waits until the time spent on watching, this check
    included, is at most that share of the time since the beginning. The first check is always due, for its cost is not known
    before: a run keeps to its budget once it has lasted for the cost of the first two checks divided by the budget.

    A counter that goes back, as one does that starts again with each epoch, is counted on from where it was.

    Args:
        every: steps between two checks, at least.
        budget: largest share of the time; None for no limit.

    Raises:
        UsageError: `every` is not a number of steps, or `budget` not a share.
    """

    def __init__(self, every: int, budget: float | None) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"expected every as 1 step or more, found {every!r}", fix="100 is usual")
        if budget is not None and not 0 < budget <= 1:
            raise UsageError(f"expected a budget between 0 and 1, found {budget!r}", fix="0.05 is 5 % of the time")
        self.asked, self.budget = every, budget
        self.begun = time.perf_counter()
        self.spent = 0.0  # seconds
        self._recent: deque[float] = deque(maxlen=5)  # seconds of the last checks
        self._speed = 0.0  # steps a second between the last two checks
        self._last: int | None = None  # step of the last check
        self._last_time = self.begun
        self._seen: int | None = None  # the last number given, and what is added to it to count on
        self._added = 0

    @property
    def _expected(self) -> float:
        """Seconds of the next check: of the longest of the last ones."""
        return max(self._recent, default=0.0)

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begun

    def counted(self, step: int) -> int:
        """The number of a step: as given, and one more than the last one where a counter went back."""
        if self._seen is not None and step < self._seen:
            self._added += self._seen + 1 - step
        self._seen = step
        return step + self._added

    def due(self, step: int) -> bool:
        """Whether to check at this step, as `counted` numbers it."""
        if self._last is None:
            return True
        if step < self._last + self.asked:
            return False
        return self.budget is None or self.spent + self._expected <= self.budget * (self.total + self._expected)

    def paid(self, seconds: float) -> None:
        """Count time that was spent on watching, other than a check."""
        self.spent += seconds

    def checked(self, step: int, seconds: float) -> None:
        """Record a check at this step that took so long."""
        self.spent += seconds
        self._recent.append(seconds)
        now = time.perf_counter()
        if self._last is not None:
            self._speed = (step - self._last) / max(now - seconds - self._last_time, 1e-9)
        self._last, self._last_time = step, now

    @property
    def every(self) -> int:
        """Steps from one check to the next at the present speed: as asked, or more to keep to the budget."""
        if self.budget is None or self._last is None or not self._speed:
            return self.asked
        share = self.spent + self._expected
        wait = share / self.budget - self._expected - (self._last_time - self.begun)
        return max(self.asked, math.ceil(wait * self._speed))
