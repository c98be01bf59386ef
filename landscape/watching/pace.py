"""When to check: every so many steps, and with a budget so seldom that the checks keep to a share of the time."""

import math
import time
from collections import deque
from numbers import Integral

from landscape.errors import UsageError

# Seconds of the second check, in those of the first, whose eigenvalues start from nothing.
_WARM = 0.5
# Share of the budget that goes to checks while the rest of it pays for the start.
_MEANWHILE = 0.5
# Of the checks after the first: share that is spread evenly over the steps; the others are over their logarithm.
_EVENLY = 0.5


def _whole(number: object) -> int | None:
    """A whole number, of NumPy too; None for anything else, and for a truth value."""
    return None if isinstance(number, bool) or not isinstance(number, Integral) else int(number)


class Pace:
    """The steps at which a training run is checked.

    A check is due `every` steps after the last one. The first check is always due: its cost is not known before. With a budget
    b the others wait, but not until the start (all before the first step, and the first check, s seconds) is paid for:

    - Where the number of steps is known, so is the time that the run will take, T, and what it leaves for further checks,
      b T - s. The share of it that may be spent after x of X steps is half x / X and half log(1 + x / every) / log(1 + X /
      every): checks are dense at the beginning and thin out. The run ends within its budget, or has no check but the first, if
      steps do not become faster and no check takes longer than the longest of the last ones. If they become at most k times
      as fast as before, its share is at most k b / (1 + (k - 1) b).
    - Where it is not, a check is due that keeps to the budget; or that keeps further checks within half of it, while the other
      half pays for the start; or, as long as the further checks have not cost more than the start, that comes when the steps
      have doubled since the last one. So a run keeps to its budget once it has lasted 2 s / b, however short its checks are,
      if none takes longer than the longest of the last ones. If one takes c seconds, it is then over its budget by less than c
      seconds, and makes no other check before that is paid for.

    A counter that goes back, as one does that starts again with each epoch, is counted on from where it was.

    Args:
        every: steps between two checks, at least.
        budget: largest share of the time; None for no limit.
        steps: of the whole training; None if it is not known.

    Raises:
        UsageError: `every` or `steps` is not a number of steps, or `budget` not a share.
    """

    def __init__(self, every: int, budget: float | None, steps: int | None = None) -> None:
        asked, told = _whole(every), None if steps is None else _whole(steps)
        if asked is None or asked < 1:
            raise UsageError(f"expected every as 1 step or more, found {every!r}", fix="100 is usual")
        if budget is not None and not 0 < budget <= 1:
            raise UsageError(f"expected a budget between 0 and 1, found {budget!r}", fix="0.05 is 5 % of the time")
        if steps is not None and (told is None or told < 1):
            raise UsageError(f"expected steps as 1 step or more, found {steps!r}", fix="leave it out if it is not known")
        self.asked, self.budget, self.steps = asked, budget, told
        self.begun = time.perf_counter()
        self.spent = 0.0  # seconds
        self._start = 0.0  # seconds of them until the first check was done
        self._recent: deque[float] = deque(maxlen=5)  # seconds of the last checks; of the first a part, until there is another
        self._speed = 0.0  # steps a second between the last two checks
        self._first: int | None = None  # step of the first check
        self._last = 0  # step of the last check
        self._last_time = self._first_time = self.begun
        self._seen_time, self._seen_step = self.begun, 0  # of the last step that was looked at, with a check or without
        self._seen: int | None = None  # the last number given, and what is added to it to count on
        self._added = 0

    @property
    def _expected(self) -> float:
        """Seconds of the next check: of the longest of the last ones."""
        return max(self._recent, default=0.0)

    @property
    def total(self) -> float:
        """Seconds from the beginning to the last step seen: what comes after the training is not its time."""
        return self._seen_time - self.begun

    def counted(self, step: int) -> int:
        """The number of a step: as given, and one more than the last one where a counter went back."""
        if self._seen is not None and step < self._seen:
            self._added += self._seen + 1 - step
        self._seen = step
        return step + self._added

    def due(self, step: int) -> bool:
        """Whether to check at this step, as `counted` numbers it. The time of the run is counted up to here."""
        self._seen_time, self._seen_step = time.perf_counter(), step
        if self._first is None:
            return True
        if step < self._last + self.asked:
            return False
        return self.budget is None or self._fits(step, self.total)

    def _fits(self, step: int, total: float) -> bool:
        """Whether the budget has room for a check at this step, so many seconds after the beginning."""
        assert self.budget is not None
        assert self._first is not None
        checks, next_, done = self.spent - self._start, self._expected, step - self._first
        if self.steps is not None and step < self.steps:
            whole = max(self.steps - 1 - self._first, done)  # counted from 0
            left = self.budget * self._whole_time(step, total, whole - done) - self._start
            logarithm = math.log1p(done / self.asked) / math.log1p(whole / self.asked)
            return checks + next_ <= left and checks <= left * (_EVENLY * done / whole + (1 - _EVENLY) * logarithm)
        allowed = self.budget * (total + next_)
        if self.spent + next_ <= allowed:
            return True
        if self.steps is not None:  # the training goes on beyond the steps that were told
            return False
        doubled = done >= 2 * (self._last - self._first) and checks + next_ <= self._start
        return doubled or checks + next_ <= _MEANWHILE * allowed

    def _whole_time(self, step: int, total: float, to_come: int) -> float:
        """Seconds that the run takes if its steps go on as they do, and watching takes all of the budget.

        The faster of the mean since the beginning and since the last check: the first steps may set something up.
        """
        assert self.budget is not None
        assert self._first is not None
        training = max(total - self.spent, 0.0)
        before = self._first_time - self.begun - self._start  # of training, before the first check
        paces = [max(training - before, 0.0) / max(step - self._first, 1)]
        if step > self._last:
            paces.append(max(total - (self._last_time - self.begun), 0.0) / (step - self._last))
        return (training + min(paces) * to_come) / max(1 - self.budget, 1e-9)

    def paid(self, seconds: float) -> None:
        """Count time that was spent on watching, other than a check."""
        self.spent += seconds
        self._seen_time = time.perf_counter()

    def checked(self, step: int, seconds: float) -> None:
        """Record a check at this step that took so long."""
        self.spent += seconds
        now = time.perf_counter()
        if self._first is None:
            self._first, self._first_time, self._start = step, now, self.spent
            self._recent.append(_WARM * seconds)
        else:
            if self._last == self._first:
                self._recent.clear()
            self._recent.append(seconds)
            self._speed = (step - self._last) / max(now - seconds - self._last_time, 1e-9)
        self._last, self._last_time = step, now
        self._seen_time = now

    def notes(self) -> list[str]:
        """That the budget of a run of known length has room for the first check only, once another was due; and what helps."""
        if self.budget is None or self.steps is None or self._first is None or self._last != self._first:
            return []
        if self._seen_step < self._first + self.asked:
            return []
        whole = self._whole_time(self._seen_step, self.total, max(self.steps - 1 - self._seen_step, 0))
        return [
            f"no check but the first fits into the budget of the whole run: {100 * self.budget:g} % of its {self.steps} steps "
            f"are about {self.budget * whole:.3g} s, the start with the first check took {self._start:.3g} s and another takes "
            f"about {self._expected:.3g} s; a larger budget, fewer samples in the probe batch or cheaper measures make room"
        ]

    @property
    def every(self) -> int:
        """Steps from one check to the next at the present speed: as asked, or more to keep to the budget.

        All steps that are left, where the budget has no room for another check.
        """
        if self.budget is None or self._first is None or not self._speed:
            return self.asked
        longest = 1 << 40 if self.steps is None or self._last >= self.steps else max(self.steps - self._last, self.asked)
        low, high = self.asked - 1, self.asked
        while high < longest and not self._waited(high):
            low, high = high, min(2 * high, longest)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._waited(middle) else (middle, high)
        return high

    def _waited(self, steps: int) -> bool:
        """Whether a check would be due so many steps after the last one, at the present speed."""
        return self._fits(self._last + steps, self._last_time - self.begun + steps / self._speed)
