"""Kendall's rank correlation of a measure with the generalization gap, with interval and p-value, allowing ties."""

import itertools
import math

import numpy as np
from scipy import stats

from landscape.comparison.intervals import DRAWS, LEVEL, expanded, percentiles, resampled
from landscape.results import RankCorrelation

# With fewer runs, the bootstrap interval covers large correlations in only 86 % of cases instead of 95 %.
ENOUGH = 8
SHUFFLES, MANY = 9_999, 60


def kendall(x: np.ndarray, y: np.ndarray, random: np.random.Generator, draws: int = DRAWS) -> RankCorrelation | None:
    """tau-b = (concordant - discordant pairs) / sqrt(pairs not tied in x * pairs not tied in y), interval and p-value.

    The interval is a percentile bootstrap over runs. A pair has the product of its runs' multiplicities as weight, and a run is
    not paired with its copies: the usual bootstrap adds ties that the population does not have, which biases tau-b. It
    covers 95 to 99 % for 8 to 20 runs and tau between 0 and 0.85, better than the jackknife with Student's t (86 % for 8 runs
    and tau = 0.85). With ties, as in gaps of a small test set, plain percentiles cover 84 to 95 %. They are then expanded as
    for a median, and cover 95 to 100 % for values rounded to their standard deviation, to half of it, to three levels or to
    two equal halves. Coverage drops to 79 %, for 12 runs without association, if nearly all runs share one value. If all
    untied pairs agree, resamples cannot disagree. The interval then extends to the tau at which n // 2 disjoint pairs all
    agree with probability 2.5 %: 2 * 0.025^(1 / (n // 2)) - 1.

    The p-value is from permutations of y: exact up to 7 runs, and without ties up to 33 by the known distribution; up to 60
    from 9,999 random ones, p = (b + 1) / (m + 1); for more, from the normal distribution with its variance corrected for ties.
    Runs are assumed to be independent.

    Args:
        x, y: one value per run; infinities are ranked.
        random, draws: generator, and number of bootstrap resamples.

    Returns:
        RankCorrelation with q = nan; None if one of them is constant or there are fewer than three runs.

    Reference: Kendall 1945, Biometrika 33:239, for tau-b; Jiang et al. 2020, arXiv:1912.02178, for its use here.

    Example:
        >>> t = kendall(np.arange(8.0), np.arange(8.0) ** 3, np.random.default_rng(0))
        >>> t.tau, round(t.low, 2), t.high
        (1.0, -0.2, 1.0)
    """
    n = len(x)
    sx, sy = _signs(x), _signs(y)
    loose = (sx != 0).astype(float), (sy != 0).astype(float)
    total = math.sqrt(loose[0].sum() * loose[1].sum())
    if n < 3 or total == 0:
        return None
    agreement = sx * sy
    tau = float(agreement.sum() / total)
    low = high = None
    if n >= ENOUGH:
        w = resampled(n, random, draws)
        top, left, right = (np.einsum("bi,bi->b", w @ m, w) for m in (agreement, *loose))
        drawn = (top / np.sqrt(np.where(left * right > 0, left * right, np.nan)))[left * right > 0]
        tied = min(m.sum() for m in loose) < n * (n - 1)
        low, high = percentiles(drawn, expanded(n) if tied else (1 - LEVEL) / 2)
        if abs(agreement.sum()) == abs(agreement).sum() > 0:
            low, high = unanimous(tau, n // 2)
    return RankCorrelation(tau, _p_value(sx, sy, random), math.nan, low, high, n)


def unanimous(value: float, pairs: int) -> tuple[float, float]:
    """95 % interval if all pairs agree: its end is the value at which `pairs` disjoint pairs agree with probability 2.5 %."""
    end = 2 * 0.025 ** (1 / max(pairs, 1)) - 1
    return (min(end, value), 1.0) if value > 0 else (-1.0, max(-end, value))


def _p_value(sx: np.ndarray, sy: np.ndarray, random: np.random.Generator) -> float:
    """Two-sided p-value: share of the permutations of y with at least the observed |agreement| with x."""
    n = len(sx)
    off = ~np.eye(n, dtype=bool)
    observed = abs((sx * sy).sum())
    if n <= 7:
        orders = np.array(list(itertools.permutations(range(n))))
    elif n > MANY or (n <= 33 and sx[off].all() and sy[off].all()):
        method = "asymptotic" if n > MANY else "exact"
        return float(stats.kendalltau(sx.sum(1), sy.sum(1), method=method).pvalue)  # the sums are the ranks
    else:
        orders = random.permuted(np.tile(np.arange(n), (SHUFFLES, 1)), axis=1)
    beyond = 0
    for block in np.array_split(orders, max(1, len(orders) * n * n // 4_000_000)):
        shuffled = sy[block[:, :, None], block[:, None, :]]
        beyond += int((np.abs((shuffled * sx).sum((1, 2))) >= observed).sum())
    return beyond / len(orders) if n <= 7 else (beyond + 1) / (len(orders) + 1)


def _signs(x: np.ndarray) -> np.ndarray:
    """sign(x_i - x_j) of all pairs, with equal infinities equal."""
    return (x[:, None] > x).astype(float) - (x[:, None] < x)
