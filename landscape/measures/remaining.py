"""How long measures still take, learnt while they run: from what passes really cost, and how many were really needed."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple

from landscape.results import Spent

# A forecast holds within this factor, either way: maximisations and Lanczos runs stop by their own criteria.
UNSURE = 2.0
# Beyond its forecast a measure is taken to need as much again as this share of what it has had.
_OVERRUN = 0.25
# Seconds of a pass that was too quick to be timed.
_INSTANT = 1e-7
# Factors that measures may teach the rest: one that went wrong is no news of all.
_TAUGHT = (0.25, 16.0)


class Remaining:
    """Seconds that are left of some measures, one after the other.

    What a pass of each kind takes begins as it was forecast, with the weight of one pass, and is learnt from the time that
    passes take; kinds that have not been seen are as much slower than forecast as all that was seen. How many passes the rest
    needs is scaled by how many those that are done needed beside their forecast, weighted with their cost.

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
        self._seen, self._forecast = list(self._each), list(self._each)  # seconds by kind: as they were, as they were forecast
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
        rates = self._rates()
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
        here, ratios = 0.0, list(self._ratios)
        if self._current is not None:
            needed, forecast = self._needed(), self._cost(self._current)
            here = max(forecast - needed, _OVERRUN * needed if needed > 0 else 0.0)
            if needed > forecast > 0:
                ratios.append((math.log((needed + here) / forecast), forecast))
        rest = [self._cost(passes) for passes in self._to_come.values()]
        # One measure of middling size, that needed what was forecast, is what was known before any was done.
        known = sum(weight for _, weight in ratios)
        prior = (known + sum(rest)) / max(len(ratios) + len(rest), 1)
        mean = sum(log * weight for log, weight in ratios) / (known + prior) if known + prior > 0 else 0.0
        seconds = here + min(max(math.exp(mean), _TAUGHT[0]), _TAUGHT[1]) * sum(rest)
        squares = math.log(UNSURE) ** 2 + sum((log - mean) ** 2 for log, _ in ratios)
        factor = math.exp(math.sqrt(squares / (1 + len(ratios))))
        return seconds, seconds / factor, seconds * factor

    def _rates(self) -> list[float]:
        """Seconds of one pass of each kind, as they are known."""
        unseen = [seen == each for seen, each in zip(self._forecast, self._each, strict=True)]
        slower = sum(self._seen) / sum(self._forecast)
        return [
            each * (slower if new else seen / forecast)
            for each, new, seen, forecast in zip(self._each, unseen, self._seen, self._forecast, strict=True)
        ]

    def _cost(self, passes: tuple[float, ...]) -> float:
        """Seconds of some passes, as they are known."""
        return sum(n * rate for n, rate in zip(passes, self._rates(), strict=True))

    def _needed(self) -> float:
        """Seconds that the passes of the measure at work would take, as they are known."""
        return self._cost(tuple(b - a for a, b in zip(self._begun, self._at, strict=True)))
