"""Intervals, tests and power for a few seeds."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import optimize, stats

DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate over seeds with its 95 % interval, and the number of seeds."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def to_json(self) -> dict[str, float | int]:
        """Plain dictionary."""
        return asdict(self)


def mean(values: Sequence[float]) -> Interval:
    """Mean over runs with a 95 % bootstrap interval.

    The percentiles are expanded by sqrt(n / (n - 1)) and Student's t, because plain ones are too short for few runs
    (Hesterberg 2015, arXiv:1411.5279, section 5.3). With one run the interval is the whole line, told as infinite ends.
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

    A sign or permutation test cannot go below 2 / 2^5 = 0.06 with five pairs.
    """
    d = np.subtract(a, b)
    if len(d) < 2 or not np.any(d):
        return 1.0
    if np.ptp(d) <= 1e-12 * np.max(np.abs(d)):  # equal but for rounding
        return 0.0
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's q-values."""
    return [] if not len(p) else [float(q) for q in stats.false_discovery_control(list(p), method="bh")]


def detectable(a: Sequence[float], b: Sequence[float], power: float = 0.8) -> float:
    """The smallest mean of a - b that a paired t-test at 5 % finds with probability `power`, for the spread that was seen.

    Infinite for fewer than three pairs, for which scipy's noncentral t is nan at effects as large as would be needed.
    """
    d = np.subtract(a, b)
    n, spread = len(d), float(np.std(d, ddof=1)) if len(d) > 2 else math.inf
    if not math.isfinite(spread) or spread == 0:
        return spread
    critical = stats.t.ppf(0.975, n - 1)

    def lacking(effect: float) -> float:
        shift = effect * math.sqrt(n)
        return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)) - power

    # From below: at effects far beyond the one that is looked for, scipy's noncentral t is nan.
    most = 1.0
    while lacking(most) < 0:
        most *= 1.25
    return spread * float(optimize.brentq(lacking, 1e-6, most))
