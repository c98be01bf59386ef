"""The permutation test and the q-values, against enumeration and SciPy's own."""

import itertools

import numpy as np
import pytest
from scipy import stats

from landscape.comparison import difference as room
from landscape.comparison.difference import adjusted, difference, rank_test, smallest_p


def enumerated(a, b) -> float:
    """All C(m + n, m) arrangements, one by one."""
    ranks = stats.rankdata([*a, *b])
    centre = len(a) * (len(ranks) + 1) / 2
    observed = abs(ranks[: len(a)].sum() - centre)
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(a))]
    return np.mean([abs(s - centre) >= observed - 1e-9 for s in sums])


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (3, 3), (5, 5), (4, 8), (7, 6)])
def test_p_is_the_share_of_arrangements_with_and_without_ties(sizes):
    random = np.random.default_rng(sum(sizes))
    for draw in (lambda n: random.normal(size=n), lambda n: random.integers(0, 3, n).astype(float)):
        a, b = draw(sizes[0]), draw(sizes[1])
        p, exact = rank_test(a, b, random)
        assert exact
        assert p == pytest.approx(enumerated(a, b), rel=1e-12)


def test_without_ties_it_is_the_exact_mann_whitney_test():
    random = np.random.default_rng(0)
    for m, n in ((6, 9), (20, 25), (50, 50)):
        a, b = random.normal(size=m), random.normal(0.5, 1, n)
        expected = stats.mannwhitneyu(a, b, method="exact").pvalue
        assert rank_test(a, b, random)[0] == pytest.approx(expected, rel=1e-9)


def test_random_arrangements_stand_in_for_all_of_many(monkeypatch):
    random = np.random.default_rng(1)
    a, b = random.normal(size=60), random.normal(0.35, 1, 55)
    monkeypatch.setattr(room, "COUNTABLE", 100)
    p, exact = rank_test(a, b, random)
    assert not exact
    monkeypatch.setattr(room, "COUNTABLE", 200)
    truth, exact = rank_test(a, b, random)
    assert exact
    assert p == pytest.approx(truth, abs=4 * np.sqrt(truth / room.SHUFFLES) + 1e-5)
    far = rank_test(a, b + 100, np.random.default_rng(0))[0]
    monkeypatch.setattr(room, "COUNTABLE", 0)
    least = rank_test(a, b + 100, np.random.default_rng(0))[0]
    assert far < 1e-30
    assert least == 1 / (room.SHUFFLES + 1), "never zero"


def test_only_ranks_count():
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 7.0, 8.0, 9.0])
    random = np.random.default_rng(0)
    plain = rank_test(a, b, random)
    huge = b.copy()
    huge[-1] = np.inf
    assert rank_test(np.exp(a), np.exp(huge), random) == plain
    both = np.array([np.inf, np.inf, 1.0]), np.array([np.inf, 0.0, -np.inf])
    assert rank_test(*both, random)[0] == pytest.approx(enumerated([9, 9, 1], [9, 0, -9]))


def test_the_smallest_p_is_reached_by_complete_separation():
    random = np.random.default_rng(0)
    for m, n in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (3, 9)):
        p = rank_test(np.arange(m, dtype=float), 100 + np.arange(n, dtype=float), random)[0]
        assert p == pytest.approx(smallest_p(m, n))


def test_q_values_are_benjamini_and_hochberg_s():
    p = [0.01, 0.04, 0.03, 0.005, 0.5]
    order = np.argsort(p)
    raw = [min(p[order[k]] * len(p) / (k + 1) for k in range(i, len(p))) for i in range(len(p))]
    expected = dict(zip(order, raw, strict=True))
    assert adjusted(p) == pytest.approx([expected[i] for i in range(len(p))])
    assert adjusted([]) == []


def test_effect_sizes_have_their_closed_forms():
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 10.0]), np.array([2.0, 2.5, 0.5, 1.0, 6.0])
    d = difference("x", ("a", a), ("b", b), np.random.default_rng(0), draws=500)
    more = sum(x > y for x in a for y in b)
    less = sum(x < y for x in a for y in b)
    assert d.delta == pytest.approx((more - less) / 25)
    assert d.auc == pytest.approx((more + 0.5 * (25 - more - less)) / 25)
    assert d.ratio == pytest.approx(3 / 2)
    assert d.ratio_low < d.ratio < d.ratio_high
    assert d.delta_low < d.delta < d.delta_high
    swapped = difference("x", ("b", b), ("a", a), np.random.default_rng(0), draws=500)
    assert (swapped.delta, swapped.p) == pytest.approx((-d.delta, d.p))
    assert (swapped.delta_low, swapped.delta_high) == pytest.approx((-d.delta_high, -d.delta_low))


def test_no_ratio_without_positive_finite_values_and_no_interval_of_few():
    random = np.random.default_rng(0)
    for b in ([-1.0, 1, 2, 3, 4], [0.0, 1, 2, 3, 4], [np.inf, 1, 2, 3, 4]):
        d = difference("x", ("a", np.arange(1.0, 6)), ("b", np.array(b)), random, draws=200)
        assert d.ratio is None
        assert d.delta_low is not None
    few = difference("x", ("a", np.arange(1.0, 5)), ("b", np.arange(1.0, 9)), random, draws=200)
    assert (few.delta_low, few.delta_high, few.ratio_low, few.ratio_high) == (None,) * 4
    assert few.ratio == pytest.approx(2.5 / 4.5)
