"""Significance and size of the difference between two groups of runs."""

import math

import numpy as np
from scipy import stats

from landscape.comparison.intervals import ratio_interval, superiority_interval
from landscape.results import Difference

# With fewer runs there is no 95 % interval: the range of four runs misses the median in one case of eight.
ENOUGH = 5
# Up to this total number of runs the test is exact; 75 against 75 takes about 0.5 s, random permutations of as many take 5 s.
COUNTABLE = 150
SHUFFLES = 99_999


def rank_test(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> tuple[float, bool]:
    """Two-sided p-value of the permutation test on the sum of ranks: P(|W - E W| >= |w - E W|) over all permutations.

    The statistic is Wilcoxon's rank sum with mid-ranks, which allows ties and infinities and is robust to outliers. All
    C(m + n, m) permutations are counted by the shift algorithm on doubled mid-ranks, which is exact with ties, too, unlike
    tables of the U statistic. For more than 150 runs, 99,999 random permutations are used, with p = (b + 1) / (draws + 1),
    which is valid for any number of draws.

    The null hypothesis is that the runs of both groups are exchangeable, as for two groups of one recipe. Then P(p <= x) <= x
    for every distribution. Against different variances with equal centres the test has little power, and no exact level.

    Args:
        a, b: values, one per run; not nan.
        random: generator of random permutations.

    Returns:
        p, and whether it is exact.

    Reference: Streitberg and Roehmel 1986, Statistical Software Newsletter 12:10; Phipson and Smyth 2010, SAGMB 9:39.

    Example:
        Five against five without overlap: 2 of 252 permutations.
        >>> p, _ = rank_test(np.arange(5.0), np.arange(5.0, 10.0), np.random.default_rng(0))
        >>> round(p * 252, 9)
        2.0
    """
    if len(a) > len(b):
        a, b = b, a  # the same test, with fewer sums to count
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
    """The smallest two-sided p-value for m against n runs: two of all permutations.

    Example:
        >>> smallest_p(3, 3), smallest_p(1, 1)
        (0.1, 1.0)
    """
    return min(1.0, 2 / math.comb(m + n, m))


def difference(
    name: str, a: tuple[str, np.ndarray], b: tuple[str, np.ndarray], random: np.random.Generator, *, draws: int
) -> Difference:
    """Test and effect sizes of one quantity in two groups; q is nan until `adjusted` computes it.

    Args:
        name: name of the quantity.
        a, b: (group, values); not nan.
        random: generator of random permutations and the bootstrap.
        draws: number of bootstrap resamples.
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
    """q-values of Benjamini and Hochberg: of the differences with q <= 0.05, at most 5 % are false in expectation.

    The tests must be independent or positively dependent. Measures of one network nearly always are, since they increase with
    its curvature. If no groups differ, the probability of any finding is then at most 5 %.

    Reference: Benjamini and Hochberg 1995, JRSS B 57:289; Benjamini and Yekutieli 2001, Annals of Statistics 29:1165.
    """
    return [float(q) for q in stats.false_discovery_control(p)] if p else []


def _subset_sums(ranks: np.ndarray, size: int) -> np.ndarray:
    """Number of subsets of `size` with each sum, in float64: for 100 runs they reach 1e29, with relative error 1e-14."""
    ways = np.zeros((size + 1, int(np.sort(ranks)[-size:].sum()) + 1))
    ways[0, 0] = 1
    for r in ranks:
        # From a copy of the previous counts, so that no run is used twice.
        ways[1:, r:] += ways[:-1, : ways.shape[1] - r].copy()
    return ways[size]
