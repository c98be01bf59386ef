"""Is there a difference between two groups of runs, and how large is it?"""

import math

import numpy as np
from scipy import stats

from landscape.comparison.intervals import ratio_interval, superiority_interval
from landscape.results import Difference

# Below this many runs no interval can be had: the range of four runs misses the median in one case of eight.
ENOUGH = 5
# Up to this many runs in all every arrangement is counted; the count of 50 against 50 takes some 0.1 s.
COUNTABLE = 100
SHUFFLES = 99_999


def rank_test(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> tuple[float, bool]:
    """Two-sided p-value of the permutation test on the sum of ranks: P(|W - E W| >= |w - E W|) over all arrangements.

    The statistic is Wilcoxon's rank sum with mid-ranks, so that ties are allowed, infinities are only the largest, and one
    huge value cannot decide. All C(m + n, m) arrangements are counted by the shift algorithm on doubled mid-ranks, which
    is exact with ties too, where tables of the U statistic are not; beyond 100 runs 99,999 random arrangements stand in for
    them and p = (b + 1) / (draws + 1), which is valid at any number of draws.

    What is tested is that the runs of both groups are exchangeable, as two groups of one recipe are; then P(p <= x) <= x
    whatever the distribution. Against unequal spreads about one centre the test has little power, and no exact level.

    Args:
        a, b: values, one a run; not nan.
        random: for the random arrangements.

    Returns:
        p, and whether it is exact.

    Reference: Streitberg and Roehmel 1986, Statistical Software Newsletter 12:10; Phipson and Smyth 2010, SAGMB 9:39.

    Example:
        Five against five without overlap: 2 of 252 arrangements.
        >>> p, _ = rank_test(np.arange(5.0), np.arange(5.0, 10.0), np.random.default_rng(0))
        >>> round(p * 252, 9)
        2.0
    """
    m, n = len(a), len(b)
    doubled = np.rint(2 * stats.rankdata(np.concatenate((a, b)))).astype(int)
    centre = m * (m + n + 1)  # of the doubled rank sum
    observed = abs(int(doubled[:m].sum()) - centre)
    if m + n <= COUNTABLE:
        ways = _subset_sums(doubled, m)
        extreme = np.abs(np.arange(len(ways)) - centre) >= observed
        return min(1.0, float(ways[extreme].sum() / ways.sum())), True
    beyond, left = 0, SHUFFLES
    while left:
        block = min(left, 5_000)
        sums = random.permuted(np.tile(doubled, (block, 1)), axis=1)[:, :m].sum(1)
        beyond += int((np.abs(sums - centre) >= observed).sum())
        left -= block
    return (beyond + 1) / (SHUFFLES + 1), False


def smallest_p(m: int, n: int) -> float:
    """The smallest two-sided p-value that m against n runs can give: two arrangements out of all.

    Example:
        >>> smallest_p(3, 3), smallest_p(1, 1)
        (0.1, 1.0)
    """
    return min(1.0, 2 / math.comb(m + n, m))


def difference(
    name: str, a: tuple[str, np.ndarray], b: tuple[str, np.ndarray], random: np.random.Generator, *, draws: int
) -> Difference:
    """Test and effect sizes of one quantity in two groups; q is left at nan for `adjusted` to fill.

    Args:
        name: of the quantity.
        a, b: (group, values); not nan.
        random: of random arrangements and the bootstrap.
        draws: of the bootstrap.
    """
    x, y = a[1], b[1]
    wins = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
    enough = min(len(x), len(y)) >= ENOUGH
    positive = bool((np.concatenate((x, y)) > 0).all() and np.isfinite(np.concatenate((x, y))).all())
    p, exact = rank_test(x, y, random)
    low, high = (2 * t - 1 for t in superiority_interval(wins)) if enough else (None, None)
    ratio_ends = ratio_interval(x, y, random, draws) if enough and positive else (None, None)
    ratio = float(np.median(x) / np.median(y)) if positive else None
    delta, least = float(2 * wins.mean() - 1), smallest_p(len(x), len(y))
    return Difference(name, a[0], b[0], (len(x), len(y)), p, exact, least, math.nan, delta, low, high, ratio, *ratio_ends)


def adjusted(p: list[float]) -> list[float]:
    """q-values of Benjamini and Hochberg: calling all q <= 0.05 a difference, at most 5 % of these are false, on average.

    It relies on tests that are independent or positively dependent, which measures of one network nearly always are (they
    rise together with its curvature); where no group differs at all, the chance of any call is then at most 5 %.

    Reference: Benjamini and Hochberg 1995, JRSS B 57:289; Benjamini and Yekutieli 2001, Annals of Statistics 29:1165.
    """
    return [float(q) for q in stats.false_discovery_control(p)] if p else []


def _subset_sums(ranks: np.ndarray, size: int) -> np.ndarray:
    """How many subsets of `size` have each sum, in float64: the counts of 100 runs reach 1e29, their relative error 1e-14."""
    ways = np.zeros((size + 1, int(np.sort(ranks)[-size:].sum()) + 1))
    ways[0, 0] = 1
    for r in ranks:
        # Right to left, so that no run is taken twice; only the sizes that can be reached move.
        ways[1:, r:] += ways[:-1, : ways.shape[1] - r].copy()
    return ways[size]
