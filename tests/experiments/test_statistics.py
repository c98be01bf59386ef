"""Intervals, tests and power of the studies, on populations whose answers are known."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.common.statistics import adjusted, asked, detectable, difference, direction, mean, paired_p


@pytest.mark.parametrize(("seeds", "share"), [(3, 0.75), (5, 0.92), (10, 0.95)])
def test_the_interval_of_a_mean_covers_it_as_often_as_said(seeds, share):
    random = np.random.default_rng(1)
    found = [mean(random.normal(3.0, 2.0, seeds)) for _ in range(1000)]
    covered = sum(i.low <= 3.0 <= i.high for i in found) / len(found)
    assert covered == pytest.approx(share, abs=0.03)


def test_one_run_has_no_interval():
    found = mean([2.0])
    assert (found.value, found.low, found.high) == (2.0, -math.inf, math.inf)


def test_a_difference_is_paired_by_seed():
    own = np.array([0.1, 0.5, 0.9, 0.2, 0.4])
    found = difference(own + 0.01, own)
    assert found.value == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01)
    assert paired_p(own + 0.01 + 1e-4 * np.arange(5), own) < 1e-4
    assert paired_p(own, own) == 1.0
    assert paired_p(own + 0.5, own) == 0.0
    assert paired_p(own, own[::-1]) == pytest.approx(stats.ttest_rel(own, own[::-1]).pvalue)


def test_the_detectable_effect_is_found_eight_times_in_ten():
    random = np.random.default_rng(2)
    seen = random.normal(0.0, 1.0, 6)
    effect = detectable(seen, np.zeros(6))
    spread = float(np.std(seen, ddof=1))
    drawn = random.normal(effect, spread, (4000, 6))
    power = float(np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05))
    assert power == pytest.approx(0.8, abs=0.03)
    among = detectable(seen, np.zeros(6), level=0.005)
    drawn = random.normal(among, spread, (4000, 6))
    assert float(np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.005)) == pytest.approx(0.8, abs=0.03)


def test_one_more_test_needs_the_level_of_its_rank():
    q = adjusted([0.001, 0.012, 0.2, 0.9])
    assert sum(x <= 0.05 for x in q) == 2
    assert asked(q) == pytest.approx(0.05 * 3 / 4)
    for p, passes in ((0.037, True), (0.038, False)):
        assert (adjusted([0.001, 0.012, p, 0.9])[2] <= 0.05) is passes
    assert asked([0.01]) == 0.05


def test_q_values_are_those_of_benjamini_and_hochberg():
    p = [0.01, 0.04, 0.03, 0.5]
    ranked = sorted(range(4), key=lambda i: p[i])
    expected, least = [0.0] * 4, 1.0
    for rank in (4, 3, 2, 1):
        i = ranked[rank - 1]
        least = min(least, p[i] * 4 / rank)
        expected[i] = least
    assert adjusted(p) == pytest.approx(expected)
    assert adjusted([]) == []
    assert adjusted([0.01, math.nan, 0.04]) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)
    assert asked(adjusted([math.nan])) == 0.05
    assert direction(mean([1.0, math.nan, 2.0]), math.nan) == 0, "a run without a number cannot tell"
