"""Intervals, tests and power of the studies, on populations whose answers are known."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.common.statistics import (
    adjusted,
    asked,
    departure,
    detectable,
    detectable_of,
    detectable_share,
    detectable_tau,
    difference,
    direction,
    equality,
    exceptions,
    hits_above,
    mean,
    p_of,
    paired_p,
    spread_allowed,
)


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


def test_a_departure_from_a_bar_is_found_eight_times_in_ten():
    random = np.random.default_rng(3)
    seen = random.normal(0.95, 0.01, 5)
    distance, spread = departure(seen, 0.97), float(np.std(seen, ddof=1))
    for sign in (1, -1):
        drawn = random.normal(0.97 + sign * distance, spread, (4000, 5))
        found = stats.ttest_1samp(drawn, 0.97, axis=1).pvalue < 0.05
        assert float(np.mean(found)) == pytest.approx(0.8, abs=0.03)
    assert departure([0.9, 0.95], 0.97) == math.inf, "two runs have no power that could be told"


@pytest.mark.parametrize(("n", "level"), [(3, 0.05), (5, 0.05), (5, 0.05 / 3), (20, 0.05)])
def test_an_equality_is_told_eight_times_in_ten_with_the_spread_that_is_allowed(n, level):
    margin, random = 0.025, np.random.default_rng(4)
    drawn = random.normal(0.1, spread_allowed(n, margin, level=level), (20_000, n))
    half = stats.t.ppf(1 - level / 2, n - 1) * drawn.std(axis=1, ddof=1) / math.sqrt(n)
    inside = np.abs(drawn.mean(axis=1) - 0.1) + half <= margin
    assert float(np.mean(inside)) == pytest.approx(0.8, abs=0.01)
    assert spread_allowed(1, margin) == 0.0


def test_an_equality_is_told_for_the_least_certain_group():
    groups = [[1.0, 1.01, 0.99, 1.0, 1.0], [1.0, 1.1, 0.9, 1.0], [1.0]]
    allowed = 100 * spread_allowed(4, 0.05)
    told = equality(groups, 0.05, "%", unit=100)
    assert f"at most {allowed:.2g} %" in told
    assert "(seen: 8.2 or less)" in told
    assert f"{100 * detectable([0.0, 0.1, -0.1, 0.0], [0.0] * 4):.2g} % beyond" in told
    assert equality([[1.0, 2.0], []], 0.05, "%") == ""
    assert told.endswith("; nothing where there are less than three runs")
    assert equality(groups[:2], 0.05, "%", unit=100) == told.partition(";")[0]


@pytest.mark.parametrize(("runs", "bar"), [(120, 0.05), (20, 0.2), (20, 0.8), (1000, 0.5)])
def test_a_share_that_is_detectable_is_called_too_high_eight_times_in_ten(runs, bar):
    share = detectable_share(runs, hits_above(runs, bar))
    drawn, counts = np.unique(np.random.default_rng(5).binomial(runs, share, 20_000), return_counts=True)
    above = [stats.binomtest(int(k), runs).proportion_ci(0.95).low > bar for k in drawn]
    assert float(counts[above].sum() / counts.sum()) == pytest.approx(0.8, abs=0.01)


def test_exceptions_are_seen_in_one_run():
    assert detectable_share(5) == pytest.approx(1 - 0.2 ** (1 / 5))
    assert exceptions(5, "runs") == "28 % of runs"
    assert hits_above(5, 0.9) == 6, "five of five hold 0.9 in their interval"
    assert detectable_share(5, hits_above(5, 0.9)) == math.inf


def test_a_statistic_with_an_interval_finds_its_effect_eight_times_in_ten():
    error, random = 0.1, np.random.default_rng(6)
    for level in (0.05, 0.002):
        effect = detectable_of(0.3 - 1.96 * error, 0.3 + 1.96 * error, level=level)
        p = 2 * stats.norm.sf(np.abs(random.normal(effect, error, 20_000)) / error)
        assert float(np.mean(p < level)) == pytest.approx(0.8, abs=0.01)


def test_a_tau_that_is_detectable_is_found_eight_times_in_ten():
    n, random = 40, np.random.default_rng(7)
    assert math.isinf(detectable_tau(3)), "no tau is above 1"
    rho = math.sin(math.pi / 2 * detectable_tau(n))  # tau = 2 / pi asin rho for normal numbers
    x, noise = random.normal(size=(2, 600, n))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    found = [stats.kendalltau(a, b).pvalue < 0.05 for a, b in zip(x, y, strict=True)]
    assert float(np.mean(found)) == pytest.approx(0.8, abs=0.05)


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


def test_a_p_value_from_an_interval_is_that_of_a_normal_statistic():
    z = stats.norm.ppf(0.975)
    assert p_of(2.0, 2.0 - z, 2.0 + z) == pytest.approx(2 * stats.norm.sf(2.0))
    assert p_of(-z, -2 * z, 0.0) == pytest.approx(0.05), "an interval that ends at 0"
    assert (p_of(0.5, 0.5, 0.5), p_of(0.0, 0.0, 0.0)) == (0.0, 1.0)
