"""Intervals, tests and power for a few seeds."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import optimize, stats

DRAWS = 10_000
LEVEL = 0.05  # of q-values


@dataclass(frozen=True)
class Interval:
    """An estimate over seeds with its 95 % interval, and the number of seeds."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def exp(self) -> "Interval":
        """The interval of a factor, where this is that of its logarithm."""
        return Interval(exp(self.value), exp(self.low), exp(self.high), self.n)

    def to_json(self) -> dict[str, float | int]:
        """Plain dictionary."""
        return asdict(self)


def exp(x: float) -> float:
    """e^x, infinite where it overflows."""
    return math.exp(x) if x < 700 else math.inf


def mean(values: Sequence[float]) -> Interval:
    """Mean over runs with a 95 % bootstrap interval.

    The percentiles are expanded by sqrt(n / (n - 1)) and Student's t, because plain ones are too short for few runs
    (Hesterberg 2015, arXiv:1411.5279, section 5.3). A bootstrap interval never leaves the range of the runs, so it still covers
    too seldom: the mean of a normal distribution in 75 % of cases with three runs, 92 % with five, 95 % with ten. With one run
    the interval is the whole line, told as infinite ends.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return Interval(float(x.mean()), -math.inf, math.inf, len(x))
    drawn = np.random.default_rng(0).choice(x, (DRAWS, len(x))).mean(axis=1)
    tail = stats.norm.cdf(-math.sqrt(len(x) / (len(x) - 1)) * stats.t.ppf(0.975, len(x) - 1))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(float(x.mean()), float(low), float(high), len(x))


def difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of a - b for runs paired by their seed, with a 95 % bootstrap interval as in `mean`."""
    return mean(np.subtract(a, b).tolist())


def paired_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value that the mean of a - b is zero: Student's t for pairs; 1 if all pairs are equal.

    A sign or permutation test cannot go below 2 / 2^5 = 0.06 with five pairs. Differences that are all the same but not zero,
    as of shares that are 0 and 1 in every run, have no spread and the p-value 0.
    """
    d = np.subtract(a, b)
    if len(d) < 2 or not np.any(d):
        return 1.0
    if np.ptp(d) <= 1e-12 * np.max(np.abs(d)):  # equal but for rounding
        return 0.0
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def one_sided_p(a: Sequence[float], b: Sequence[float]) -> float:
    """p-value that the mean of a - b is not above zero: half of `paired_p` if it is above, and 1 less that half if not."""
    half = paired_p(a, b) / 2
    return half if np.mean(np.subtract(a, b)) > 0 else 1 - half


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's q-values; a test without a p-value (nan) has none, and does not count among the others."""
    known = np.isfinite(np.asarray(p, dtype=float))
    q = np.full(len(known), math.nan)
    if known.any():
        q[known] = stats.false_discovery_control(np.asarray(p, dtype=float)[known], method="bh")
    return [float(x) for x in q]


def asked(q: Sequence[float]) -> float:
    """The p-value that one more of these tests would have needed for a q-value of 5 %: 5 % (k + 1) / m if k of m passed."""
    passed, known = sum(x <= LEVEL for x in q), sum(math.isfinite(x) for x in q)
    return LEVEL * min(passed + 1, known) / known if known else LEVEL


def direction(found: Interval, q: float = 0.0, equal: float = 0.0) -> int:
    """1 if an interval is above `equal`, -1 if below, 0 if these seeds cannot tell or q is above 5 %."""
    return int(q <= LEVEL and found.low > equal) - int(q <= LEVEL and found.high < equal)


def within(found: Interval, low: float, high: float) -> bool | None:
    """Equivalence: True if all of an interval is from `low` to `high`, False if none of it, else None."""
    if found.high < low or found.low > high:
        return False
    return True if low <= found.low and found.high <= high else None


def every(answers: Sequence[bool | None]) -> bool | None:
    """False if any is, True if all are; None if some cannot be told or there are none."""
    if False in answers:
        return False
    return True if answers and None not in answers else None


def some(answers: Sequence[bool | None]) -> bool | None:
    """True if any is, False if all are false; None if some cannot be told or there are none."""
    if True in answers:
        return True
    return False if answers and None not in answers else None


def everywhere(directions: Sequence[int], sign: int = 1) -> bool | None:
    """True if all point to `sign`, False if any points the other way, None if some cannot be told or there are none."""
    return every([None if d == 0 else d == sign for d in directions])


def detectable(a: Sequence[float], b: Sequence[float], power: float = 0.8, level: float = LEVEL) -> float:
    """The smallest mean of a - b that a paired t-test finds with probability `power`, for the spread that was seen.

    `level` is that of the test: `asked` tells it where q-values are held against 5 %.
    Infinite for fewer than three pairs. The power is the mean over the distribution of the sample's spread, because scipy's
    noncentral t is nan for few pairs and large effects.
    """
    d = np.subtract(a, b)
    n, spread = len(d), float(np.std(d, ddof=1)) if len(d) > 2 else math.inf
    if not math.isfinite(spread) or spread == 0:
        return spread
    critical = _spreads(n) * stats.t.ppf(1 - level / 2, n - 1)

    def lacking(effect: float) -> float:
        shift = effect * math.sqrt(n)
        return float(np.mean(stats.norm.cdf(shift - critical) + stats.norm.cdf(-shift - critical))) - power

    return spread * float(optimize.brentq(lacking, 0.0, 1e6))


def departure(values: Sequence[float], number: float, level: float = LEVEL) -> float:
    """The smallest distance of the true mean from a published number, or a bar, that is found with probability 0.8.

    As in `detectable`, for the spread that was seen. The test is Student's at `level`; the bootstrap interval of `mean` is
    shorter for few runs, so claims that are judged by it see more, and are wrong more often than 5 %, as told there.
    """
    return detectable(values, [number] * len(values), level=level)


def spread_allowed(n: int, margin: float, power: float = 0.8, level: float = LEVEL) -> float:
    """The largest true standard deviation between n runs with which an equality is told with probability `power`.

    An equality is told if all of Student's interval is within `margin` of a number: |mean - number| + t S / sqrt(n) <= margin,
    with S the standard deviation of the n runs. The true mean is taken to be that number, and the runs to be normal. So this is
    a condition on the half-width of the interval: a larger spread makes it too long, even where the equality is true. 0 for one
    run. Claims that are judged by the shorter bootstrap interval of `mean` allow somewhat more: for five runs they tell the
    equality at this spread with probability 0.87.
    """
    if n < 2:
        return 0.0
    half = _spreads(n) * stats.t.ppf(1 - level / 2, n - 1) / math.sqrt(n)  # of the interval, for a true spread of 1

    def lacking(m: float) -> float:
        return float(np.mean(np.maximum(2 * stats.norm.cdf((m - half) * math.sqrt(n)) - 1, 0.0))) - power

    return margin / float(optimize.brentq(lacking, 0.0, 1e6))


def equality(groups: Sequence[Sequence[float]], margin: float, words: str, *, unit: float = 1.0, level: float = LEVEL) -> str:
    """What the runs of each group could have seen of an equality within `margin`, for the least certain group, as text.

    Told are `spread_allowed` beside the spreads that were seen, and how far beyond the margin a mean has to lie to be found
    there (`departure`), in `words`, of which `unit` make one of the numbers. Groups of less than three runs have no spread to
    go by; the text says so.
    """
    given, groups = len(groups), [own for own in groups if len(own) > 2]
    if not groups:
        return ""
    left = "; nothing where there are less than three runs" if given > len(groups) else ""
    allowed = min(spread_allowed(len(own), margin, level=level) for own in groups)
    seen, beyond = max(float(np.std(own, ddof=1)) for own in groups), max(departure(own, 0.0, level) for own in groups)
    return (
        f"equality, with a true standard deviation of at most {unit * allowed:.2g} {words} between runs (seen: "
        f"{unit * seen:.2g} or less), and a mean {unit * beyond:.2g} {words} beyond the margin{left}"
    )


def hits_above(runs: int, bar: float, level: float = LEVEL) -> int:
    """The fewest hits in `runs` for which Clopper and Pearson's interval is all above `bar`; runs + 1 if none are enough."""
    return next((k for k in range(runs + 1) if stats.binom.sf(k - 1, runs, bar) < level / 2), runs + 1)


def detectable_share(runs: int, hits: int = 1, power: float = 0.8) -> float:
    """The smallest true share with which `hits` or more of `runs` independent runs are seen with probability `power`.

    The binomial distribution's P(X >= hits) grows with the share, and is `power` at the quantile `power` of the beta
    distribution (hits, runs - hits + 1). With `hits` the number that refutes a claim, as one run does of what should be so in
    all, or `hits_above` of a bar, this is the smallest share that would have refuted it. Infinite if no number of hits does.
    """
    return float(stats.beta.ppf(power, hits, runs - hits + 1)) if hits <= runs else math.inf


def exceptions(runs: int, words: str) -> str:
    """What so many runs could have seen of exceptions to what should be so in all of them: the smallest share, as text."""
    return f"{100 * detectable_share(runs):.2g} % of {words}"


def detectable_of(low: float, high: float, power: float = 0.8, level: float = LEVEL) -> float:
    """The smallest effect that is found with probability `power` by a statistic with this 95 % interval, taken to be normal.

    The test has `level`, on two sides, and the standard error is that of the interval. A correlation near 1 has a shorter
    interval than one near 0: among many of the same runs, the longest is that of the smallest effects.
    """
    error = (high - low) / (2 * stats.norm.ppf(0.975))
    return float(error * (stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)))


def p_of(value: float, low: float, high: float) -> float:
    """Two-sided p-value that a statistic is 0, by its estimate and its 95 % interval, taken to be normal."""
    error = (high - low) / (2 * stats.norm.ppf(0.975))
    return float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else 0.0 if value else 1.0


def detectable_tau(n: int, power: float = 0.8, level: float = LEVEL) -> float:
    """The smallest Kendall's tau of n runs that is found with probability `power`, as `detectable_of` its error without ties.

    That is sqrt(2 (2 n + 5) / (9 n (n - 1))) where the two are independent (Kendall 1938). Infinite where it would be above 1.
    """
    error = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
    found = float(error * (stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)))
    return found if found <= 1 else math.inf


def _spreads(n: int) -> np.ndarray:
    """4000 quantiles of the sample's standard deviation, of n normal numbers of standard deviation 1."""
    return np.asarray(np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1)))
