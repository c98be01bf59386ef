"""How long measures still take, learnt while they run: from what passes really cost, and how many were really needed."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple

from landscape.results import Spent

# A forecast holds within this factor, either way: maximisations and Lanczos runs stop by their own criteria.
UNSURE = 2.0
# Nearly at its forecast and beyond it, a measure is taken to need as much again as this share of what it has had since.
_NEARLY, _OVERRUN = 0.9, 0.25
# What a forecast of a pass counts for, in passes that were seen: it was timed on a part of the data, before anything was warm.
_TRUST = 0.25
# Seconds of a pass that was too quick to be timed.
_INSTANT = 1e-7
# Factors that measures may teach the rest: one that went wrong is no news of all.
_TAUGHT = (0.25, 16.0)


class Remaining:
    """Seconds that are left of some measures, one after the other.

    What a pass of each kind takes begins as it was forecast, with the weight of a quarter of a pass, and is learnt from the
    time that passes take. How many passes the rest needs is scaled by how many those that are done needed beside their
    forecast, weighted with their cost.

    Args:
        passes: measure -> passes over the data that it is forecast to need, in the order in which they run.
        each: forecast of the seconds of one pass of each kind.
        spent: passes so far.
        clock: seconds.
    """

    def __init__(
        self,
        passes: Mapping[str, Spent],
        each: Spent,
        spent: Callable[[], Spent],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._to_come = {name: astuple(p) for name, p in passes.items()}
        self._each = [max(x, _INSTANT) for x in astuple(each)]
        self._spent, self._clock = spent, clock
        # Seconds by kind, as they were and as they were forecast.
        self._seen, self._forecast = ([_TRUST * x for x in self._each] for _ in range(2))
        self._looked, self._at = clock(), astuple(spent())
        self._current: tuple[float, ...] | None = None
        self._begun = self._at
        self._ratios: list[tuple[float, float]] = []  # log of passes needed over passes forecast, and the weight of each

    def begin(self, name: str) -> None:
        """A measure begins."""
        self._looked, self._at = self._clock(), astuple(self._spent())
        self._begun, self._current = self._at, self._to_come.pop(name, (0.0,) * len(self._each))

    def look(self) -> None:
        """Learn from what has passed since the last look: time goes to kinds of passes as they are known so far."""
        now, at = self._clock(), astuple(self._spent())
        rates = self._rates(1.0)
        parts = [(b - a) * rate for a, b, rate in zip(self._at, at, rates, strict=True)]
        if (expected := sum(parts)) <= 0:
            return  # whatever it was belongs to the next pass
        for kind, part in enumerate(parts):
            self._seen[kind] += (now - self._looked) * part / expected
            self._forecast[kind] += (at[kind] - self._at[kind]) * self._each[kind]
        self._looked, self._at = now, at

    def end(self) -> None:
        """The measure that was begun is done."""
        self.look()
        if self._current is not None:
            needed, forecast = self._needed(), self._cost(self._current)
            if needed > 0 and forecast > 0:
                self._ratios.append((math.log(needed / forecast), forecast))
        self._current = None

    def left(self) -> tuple[float, float, float]:
        """Seconds that are likely left, and their range."""
        # What was never seen may be as it was forecast, or as much slower as all that was seen; in the middle is likely.
        slower = sum(self._seen) / sum(self._forecast)
        likely, mean = self._left(slower**0.5)
        low, high = sorted((self._left(1.0)[0], self._left(slower)[0]))
        squares = math.log(UNSURE) ** 2 + sum((log - mean) ** 2 for log, _ in self._ratios)
        factor = math.exp(math.sqrt(squares / (1 + len(self._ratios))))
        return likely, min(low, likely) / factor, max(high, likely) * factor

    def _left(self, unseen: float) -> tuple[float, float]:
        """Seconds that are left if passes of kinds never seen are so much slower than forecast; mean log of what was taught."""
        rest = [self._cost(passes, unseen) for passes in self._to_come.values()]
        mean = self._taught(self._ratios, rest)
        if self._current is None:
            return math.exp(mean) * sum(rest), mean
        needed, forecast = self._needed(unseen), self._cost(self._current, unseen)
        expected = math.exp(mean) * forecast
        here = max(expected - needed, _OVERRUN * (needed - _NEARLY * expected), 0.0)
        if needed > expected > 0:  # this one teaches too, before it is done
            mean = self._taught([*self._ratios, (math.log((needed + here) / forecast), forecast)], rest)
        return here + math.exp(mean) * sum(rest), mean

    @staticmethod
    def _taught(ratios: list[tuple[float, float]], rest: list[float]) -> float:
        """Log of the factor by which the rest will need more passes than was forecast.

        One measure of middling cost that needed what was forecast stands for what was known before any was done.
        """
        known = sum(weight for _, weight in ratios)
        prior = (known + sum(rest)) / max(len(ratios) + len(rest), 1)
        mean = sum(log * weight for log, weight in ratios) / (known + prior) if known + prior > 0 else 0.0
        return min(max(mean, math.log(_TAUGHT[0])), math.log(_TAUGHT[1]))

    def _rates(self, unseen: float) -> list[float]:
        """Seconds of one pass of each kind, as they are known."""
        return [
            each * (unseen if forecast == _TRUST * each else seen / forecast)
            for each, seen, forecast in zip(self._each, self._seen, self._forecast, strict=True)
        ]

    def _cost(self, passes: tuple[float, ...], unseen: float = 1.0) -> float:
        """Seconds of some passes, as they are known."""
        return sum(n * rate for n, rate in zip(passes, self._rates(unseen), strict=True))

    def _needed(self, unseen: float = 1.0) -> float:
        """Seconds that the passes of the measure at work would take, as they are known."""
        return self._cost(tuple(b - a for a, b in zip(self._begun, self._at, strict=True)), unseen)
