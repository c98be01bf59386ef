"""Kendall's tau-b and the granules, against SciPy and by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from landscape.comparison.correlation import kendall
from landscape.comparison.granulated import granulated, granules, hyperparameters


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("n", [5, 9, 25])
def test_tau_is_scipy_s_tau_b(n, levels):
    random = np.random.default_rng([n, levels])
    x, y = (random.integers(0, levels, n).astype(float) for _ in range(2))
    expected = stats.kendalltau(x, y)
    assert kendall(x, y, random, 200).tau == pytest.approx(expected.statistic)


def test_p_is_exact_without_ties():
    random = np.random.default_rng(0)
    for n in (4, 6, 8, 14, 30):
        x, y = random.standard_normal(n), random.standard_normal(n)
        assert kendall(x, y, random, 200).p == pytest.approx(stats.kendalltau(x, y, method="exact").pvalue)


def test_p_of_many_runs_is_the_normal_one():
    random = np.random.default_rng(3)
    x, y = random.integers(0, 9, 80).astype(float), random.standard_normal(80)
    assert kendall(x, y, random, 50).p == pytest.approx(stats.kendalltau(x, y, method="asymptotic").pvalue)


def test_p_with_ties_counts_arrangements():
    random = np.random.default_rng(1)
    x, y = np.array([1.0, 2, 2, 3, 4, 5, 6, 7]), np.array([0.0, 0, 1, 1, 1, 2, 2, 2])

    def statistic(order):
        return abs(
            sum(np.sign(x[i] - x[j]) * np.sign(y[order[i]] - y[order[j]]) for i, j in itertools.combinations(range(8), 2))
        )

    observed = statistic(range(8))
    shuffles = [random.permutation(8) for _ in range(4000)]
    expected = np.mean([statistic(o) >= observed for o in shuffles])
    assert kendall(x, y, random, 200).p == pytest.approx(expected, abs=0.01)
    small = kendall(x[:6], y[:6], random, 200).p
    everything = [tuple(o) for o in itertools.permutations(range(6))]

    def short(order):
        return abs(
            sum(np.sign(x[i] - x[j]) * np.sign(y[order[i]] - y[order[j]]) for i, j in itertools.combinations(range(6), 2))
        )

    assert small == pytest.approx(np.mean([short(o) >= short(range(6)) for o in everything]))


def test_infinities_are_ranked_and_constants_have_no_tau():
    x = np.array([1.0, 2, 3, np.inf, np.inf, 0, -1, 5])
    same = np.array([1.0, 2, 3, 90, 90, 0, -1, 5])
    y = np.arange(8.0)
    assert kendall(x, y, np.random.default_rng(0)) == pytest.approx(kendall(same, y, np.random.default_rng(0)), nan_ok=True)
    assert kendall(np.ones(8), y, np.random.default_rng(0)) is None
    assert kendall(x[:2], y[:2], np.random.default_rng(0)) is None


def test_an_interval_needs_eight_runs_and_leaves_room_at_perfect_agreement():
    random = np.random.default_rng(0)
    assert kendall(np.arange(7.0), np.arange(7.0), random).low is None
    perfect = kendall(np.arange(20.0), -np.arange(20.0), random)
    assert (perfect.tau, perfect.low) == (-1.0, -1.0)
    assert perfect.high == pytest.approx(1 - 2 * 0.025 ** (1 / 10))


def test_granules_pair_runs_that_differ_in_one_hyperparameter_only():
    settings = [
        {"lr": 0.1, "batch": 16}, {"lr": 0.1, "batch": 16}, {"lr": 0.1, "batch": 64}, {"lr": 0.2, "batch": 64},
        {"lr": 0.2, "batch": 16, "dropout": 0.5},
    ]  # fmt: skip
    found = granules(settings)
    assert {tuple(p) for p in found.pairs.tolist()} == {(0, 2), (1, 2), (2, 3)}
    assert found.counts == {"lr": 1, "batch": 2, "dropout": 0}


def test_psi_by_hand():
    """lr: granules batch 1 and 2 agree (+1) and disagree (-1): 0. batch: both agree: 1. Psi = 1/2."""
    settings = [{"lr": i, "batch": j, "seed": 0} for i in (1, 2) for j in (1, 2)]
    values, gaps = np.array([1.0, 2, 2, 3]), np.array([1.0, 4, 2, 3])
    result = granulated(values, gaps, granules(settings), np.random.default_rng(0))
    # pairs: lr (0, 2): + ; lr (1, 3): 2 < 3 but 4 > 3: - ; batch (0, 1): + ; batch (2, 3): +
    assert result.by_hyperparameter == {"lr": 0.0, "batch": 1.0}
    assert result.psi == 0.5
    assert result.low is None
    assert "4 runs in pairs" in result.reason


def test_psi_that_cannot_be_had_says_why():
    both = [{"lr": i, "batch": i} for i in range(4)]
    lost = granulated(np.arange(4.0), np.arange(4.0), granules(both), np.random.default_rng(0))
    assert lost.psi is None
    assert lost.reason == "no two runs differ in one of lr, batch only"
    none = granulated(np.arange(4.0), np.arange(4.0), granules([{"lr": 1}] * 4), np.random.default_rng(0))
    assert none.reason == "no recorded hyperparameter varies"


def test_hyperparameters_leave_out_seeds_and_an_unused_budget():
    training = {"lr": 0.1, "seed": 3, "corruption_seed": 1, "epochs": 100, "evaluate_every": 5, "network_options": {"width": 8}}
    stopped = {"training": training, "final": {"stopped": "loss"}, "history": []}
    assert hyperparameters(stopped) == {"lr": 0.1, "network_options.width": 8}
    assert hyperparameters({"training": training, "final": {"stopped": "epochs"}})["epochs"] == 100
    assert hyperparameters({"lr": 1, "seed": 2, "seconds": 3.0}) == {"lr": 1}
    corrupted = {"training": {"corruption": "labels", "corruption_level": 0.4, "lr": 1}}
    assert hyperparameters(corrupted) == {"corruption": "labels 0.4", "lr": 1}, "one hyperparameter: clean labels differ in one"
    assert hyperparameters({"training": {"corruption": "clean", "corruption_level": None}}) == {"corruption": "clean"}
    assert hyperparameters(None) == {}
