"""Estimate of the remaining time while measures run, from the measured time and number of passes."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple

from landscape.results import Spent

# A forecast is uncertain by this factor, up and down: maximisations and Lanczos runs stop by their own criteria.
UNSURE = 2.0
# Beyond _NEARLY of its forecast, a measure is expected to need _OVERRUN times the passes since then in addition.
_NEARLY, _OVERRUN = 0.9, 0.25
# Weight of the forecast time of a pass, in observed passes; it was timed on part of the data, before caches were warm.
_TRUST = 0.25
# Seconds of a pass that is too short to be timed.
_INSTANT = 1e-7
# Limits of the correction factor that finished measures give for the rest, against outliers.
_TAUGHT = (0.25, 16.0)


class Remaining:
    """Estimates the remaining seconds of measures that run one after the other.

    The time of a pass of each kind starts at its forecast, with the weight of a quarter of a pass, and is updated from measured
    times. The number of passes of the remaining measures is their forecast times the ratio of actual to forecast passes of
    the finished measures, weighted by cost.

    Args:
        passes: measure -> forecast of its passes over the data, in the order of execution.
        each: forecast of the seconds of one pass of each kind.
        spent: returns the passes so far.
        clock: returns the time in seconds.
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
        # Seconds by kind of pass, measured and forecast.
        self._seen, self._forecast = ([_TRUST * x for x in self._each] for _ in range(2))
        self._looked, self._at = clock(), astuple(spent())
        self._current: tuple[float, ...] | None = None
        self._begun = self._at
        self._told: tuple[float, float, float, float] | None = None  # of the current measure, and when
        self._ratios: list[tuple[float, float]] = []  # (log of actual / forecast passes, weight) of each finished measure

    def begin(self, name: str) -> None:
        """Register the start of a measure."""
        self._looked, self._at = self._clock(), astuple(self._spent())
        self._begun, self._current, self._told = self._at, self._to_come.pop(name, (0.0,) * len(self._each)), None

    def told(self, seconds: float, low: float, high: float) -> None:
        """Register what the current measure itself says of its remaining seconds: a search counts the climbs to come."""
        self._told = (seconds, low, high, self._clock())

    def look(self) -> None:
        """Update the times of passes: the time since the last call is divided among kinds by their current estimates."""
        now, at = self._clock(), astuple(self._spent())
        rates = self._rates(1.0)
        parts = [(b - a) * rate for a, b, rate in zip(self._at, at, rates, strict=True)]
        if (expected := sum(parts)) <= 0:
            return  # no pass is finished: the time counts for the next one
        for kind, part in enumerate(parts):
            self._seen[kind] += (now - self._looked) * part / expected
            self._forecast[kind] += (at[kind] - self._at[kind]) * self._each[kind]
        self._looked, self._at = now, at

    def end(self) -> None:
        """Register the end of the current measure."""
        self.look()
        if self._current is not None:
            needed, forecast = self._needed(), self._cost(self._current)
            if needed > 0 and forecast > 0:
                self._ratios.append((math.log(needed / forecast), forecast))
        self._current = self._told = None

    def left(self) -> tuple[float, float, float]:
        """Estimate of the remaining seconds, and its range. The range of a measure that runs is that of its whole time."""
        # Kinds of passes not seen yet may be as fast as forecast, or slower by the observed factor; the estimate is in between.
        slower = sum(self._seen) / sum(self._forecast)
        likely, mean = self._left(slower**0.5)
        low, high = sorted((self._left(1.0)[0], self._left(slower)[0]))
        squares = math.log(UNSURE) ** 2 + sum((log - mean) ** 2 for log, _ in self._ratios)
        factor = math.exp(math.sqrt(squares / (1 + len(self._ratios))))
        low, high = min(low, likely) / factor, max(high, likely) * factor
        if self._current is None:
            return likely, low, high
        needed, expected, rest = self._running()
        if self._told is not None:
            seconds, shortest, longest = self._here(self._told)
            return likely, shortest + (likely - seconds) / factor, longest + (likely - seconds) * factor
        # What remains of it is small just before its forecast is used up, and no less uncertain for that.
        return (
            likely,
            min(low, rest / factor + max(expected / factor - needed, 0.0)),
            max(high, rest + factor * expected - needed),
        )

    @property
    def open(self) -> bool:
        """Whether nobody knows the end: a run or search that stops by its own criterion is at its forecast or past it, and has
        taken more than all that comes after it.
        """
        if self._current is None or self._told is not None:
            return False
        needed, expected, rest = self._running()
        return needed > _NEARLY * expected and needed > rest

    def _here(self, told: tuple[float, float, float, float]) -> tuple[float, float, float]:
        """What the current measure said of its remaining seconds, less the time since."""
        since = self._clock() - told[3]
        return max(told[0] - since, 0.0), max(told[1] - since, 0.0), max(told[2] - since, 0.0)

    def _running(self) -> tuple[float, float, float]:
        """Seconds of the current measure so far and as expected in all, and of the measures after it."""
        rest = [self._cost(passes) for passes in self._to_come.values()]
        factor = math.exp(self._taught(self._ratios, rest))
        assert self._current is not None
        return self._needed(), factor * self._cost(self._current), factor * sum(rest)

    def _left(self, unseen: float) -> tuple[float, float]:
        """Remaining seconds if unseen kinds of passes are slower by the factor `unseen`; mean log of the correction factor."""
        rest = [self._cost(passes, unseen) for passes in self._to_come.values()]
        mean = self._taught(self._ratios, rest)
        if self._current is None:
            return math.exp(mean) * sum(rest), mean
        needed, forecast = self._needed(unseen), self._cost(self._current, unseen)
        expected = math.exp(mean) * forecast
        here = max(expected - needed, _OVERRUN * (needed - _NEARLY * expected), 0.0)
        if self._told is not None:
            here = self._here(self._told)[0]
        # The current measure contributes to the correction, too.
        if expected > 0 and needed + here > 0 and (needed > expected or self._told is not None):
            mean = self._taught([*self._ratios, (math.log((needed + here) / forecast), forecast)], rest)
        return here + math.exp(mean) * sum(rest), mean

    @staticmethod
    def _taught(ratios: list[tuple[float, float]], rest: list[float]) -> float:
        """Log of the factor by which the remaining measures will need more passes than forecast.

        The prior is one measure of average cost that needed its forecast.
        """
        known = sum(weight for _, weight in ratios)
        prior = (known + sum(rest)) / max(len(ratios) + len(rest), 1)
        mean = sum(log * weight for log, weight in ratios) / (known + prior) if known + prior > 0 else 0.0
        return min(max(mean, math.log(_TAUGHT[0])), math.log(_TAUGHT[1]))

    def _rates(self, unseen: float) -> list[float]:
        """Current estimate of the seconds of one pass of each kind."""
        return [
            each * (unseen if forecast == _TRUST * each else seen / forecast)
            for each, seen, forecast in zip(self._each, self._seen, self._forecast, strict=True)
        ]

    def _cost(self, passes: tuple[float, ...], unseen: float = 1.0) -> float:
        """Current estimate of the seconds of the given passes."""
        return sum(n * rate for n, rate in zip(passes, self._rates(unseen), strict=True))

    def _needed(self, unseen: float = 1.0) -> float:
        """Estimated seconds of the passes that the current measure has made."""
        return self._cost(tuple(b - a for a, b in zip(self._begun, self._at, strict=True)), unseen)
