"""How long a maximisation will still take: the evaluations that its climbs have to make, renewed with every one made."""

import math
import time
from dataclasses import dataclass, field
from functools import cache

from landscape.machine.progress import Advance
from landscape.machine.time_estimate import Pace

# Evaluations of one climb before any of its kind has ended: some jumps and a value at the end.
_JUMPS = 3.0
# Evaluations of one iteration of the methods with a line search, whose steps may have to be tried several times; the weight of
# this number, in iterations; and the most that is expected of one, for a search of more often ends there.
_TRIALS, _WEIGHT, _TRIED = 1.5, 4, 3.0
# Evaluations of climbs to come may be fewer than those of the climbs before by this factor, or more: late climbs are short.
_FEWER, _MORE = 3.0, 2.0

# Methods that jump between extreme points, and those that climb from all starts, extreme points included.
JUMPING = ("corner_search", "sign_corner", "boundary_gradient")
EVERYWHERE = ("sign_corner", "boundary_gradient", "apgd")

Climbs = tuple[float, float, float]


def _now() -> float:
    return time.monotonic()


@cache
def climbs_left(vain: int, done: int, before: int, patience: int, most: int) -> float:
    """Expected number of climbs until so many in a row gain nothing, or all are made.

    Climbs are taken for exchangeable: the n-th is the best of the first n with probability 1/n.

    Args:
        vain: climbs in a row that have gained nothing.
        done, most: climbs of those that count, and the most of them.
        before: climbs that do not count, made first.
        patience: climbs without gain that end the search.

    Example:
        >>> climbs_left(8, 8, 3, 8, 24), climbs_left(0, 23, 3, 8, 24), climbs_left(0, 0, 10**9, 8, 24)
        (0.0, 1.0, 8.0)
    """
    left = [0.0] * (patience + 1)
    for made in range(most - 1, done - 1, -1):
        gain = 1 / (before + made + 1)
        left = [round(1 + gain * left[0] + (1 - gain) * left[v + 1], 6) for v in range(patience)] + [0.0]
    return left[vain]


@dataclass
class Outlook:
    """Tells whoever watches how long a maximisation still takes.

    Attributes:
        iterations: steps of a climb at most, by method.
        ahead: methods to come, each with its number of climbs: at least, likely, at most.
        budget: evaluations at most, if there is a bound.
        climbs: climbs to come of the method that runs, beside the one that runs: at least, likely, at most.
    """

    advance: Advance
    iterations: dict[str, int]
    ahead: list[tuple[str, Climbs]]
    budget: int | None = None
    climbs: Climbs = (0.0, 0.0, 0.0)
    _method: str = ""
    _made: int = 0
    _all: int = 0
    _iterations: int = 0
    _lengths: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pace = Pace(_now(), span=1.0)

    def method(self) -> None:
        """The next method begins."""
        (self._method, self.climbs), *self.ahead = self.ahead

    def climb(self) -> None:
        """A climb begins."""
        self._made = self._iterations = 0
        low, likely, high = self.climbs
        self.climbs = (max(low - 1, 0.0), max(likely - 1, 0.0), max(high - 1, 0.0))

    def iteration(self, number: int) -> None:
        """So many iterations of the climb that runs are done."""
        self._iterations = number

    def ended(self) -> None:
        """The climb that ran has ended."""
        self._lengths.setdefault(self._method, []).append(self._made)

    def begun(self) -> None:
        """An evaluation begins."""
        self.advance(1)

    def evaluated(self) -> None:
        """Count an evaluation, and say how long those take that follow."""
        self._made += 1
        self._all += 1
        self._pace.add(1, _now())
        if not self.advance.heard:
            return
        each = self._pace.left(1)
        assert each is not None  # a step was added
        low, likely, high = (each * n for n in self.evaluations())
        self.advance.left(likely, low, high)

    def evaluations(self) -> Climbs:
        """Evaluations to come: at least, likely, at most."""
        own = self._length(self._method) if self._method else 0.0
        here = max(own - self._made, 0.5) if self._method else 0.0
        least = here
        if self._iterations:  # it may end with any of them
            each = (_TRIALS * _WEIGHT + self._made) / (_WEIGHT + self._iterations)
            here = (self.iterations[self._method] - self._iterations) * min(each, _TRIED)
            least = 0.0
        after = [sum(n[i] * self._length(name) for name, n in self.ahead) for i in range(3)]
        low, likely, high = (n * own + later for n, later in zip(self.climbs, after, strict=True))
        bound = math.inf if self.budget is None else self.budget - self._all
        return min((low + least) / _FEWER, bound), min(likely + here, bound), min((high + here) * _MORE, bound)

    def _length(self, method: str) -> float:
        """Evaluations of a climb: the mean of those that have ended, and of one as it is expected."""
        most = self.iterations[method]
        jumps, fixed = method in JUMPING, method in ("apgd", "lbfgsb")
        first = min(_JUMPS, most) if jumps else most + 1 if fixed else _TRIALS * most
        known = self._lengths.get(method, [])
        return (first + sum(known)) / (1 + len(known))
