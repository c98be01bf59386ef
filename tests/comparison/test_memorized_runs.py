"""AUC for telling runs that memorized from all others, against scikit-learn, and who counts as having memorized."""

import math

import numpy as np
import pytest
from compared import group
from scipy import stats
from sklearn.metrics import roc_auc_score

from landscape.comparison import compare, memorizes
from landscape.errors import UsageError


@pytest.mark.parametrize("ties", [False, True])
def test_the_auc_is_scikit_learn_s_over_all_runs(ties):
    random = np.random.default_rng(ties)
    groups, memorized, labels, all_values = {}, {}, [], {"trace": [], "norm": [], "noise": []}
    for name, shift, flag in (("clean", 0.0, False), ("small", 0.3, False), ("noisy", 1.0, True), ("random", 3.0, True)):
        table = {"trace": shift + random.standard_normal(6), "norm": -shift + random.standard_normal(6),
                 "noise": random.standard_normal(6)}  # fmt: skip
        table = {m: np.round(v) for m, v in table.items()} if ties else table
        groups[name], memorized[name] = group(table), [flag] * 6
        labels += [flag] * 6
        for m, v in table.items():
            all_values[m] += list(v)
    found = compare(groups, memorized=memorized, draws=100)
    for m, values in all_values.items():
        d = found.memorization[m]
        assert d.auc == pytest.approx(roc_auc_score(labels, values))
        assert d.auc_low <= d.auc <= d.auc_high
        assert (d.a, d.b, d.n) == ("memorized", "others", (12, 12))
        a, b = (np.array(values)[np.array(labels) == kind] for kind in (True, False))
        if not ties:
            assert d.p == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
    q = stats.false_discovery_control([d.p for d in found.memorization.values()])
    assert [d.q for d in found.memorization.values()] == pytest.approx(q), "over the measures alone"
    assert any("the AUC for runs that memorized pools groups" in r for r in found.remarks)
    assert found.memorization_rows()[0][1] == f"{d0(found).auc:.2f} [{d0(found).auc_low:.2f}, {d0(found).auc_high:.2f}]"


def d0(found):
    return found.memorization["trace"]


def test_two_groups_have_the_auc_of_their_difference():
    random = np.random.default_rng(3)
    groups = {n: group({"trace": s + random.standard_normal(7)}) for n, s in (("noisy", 1.0), ("clean", 0.0))}
    found = compare(groups, memorized={"noisy": [True] * 7, "clean": [False] * 7}, draws=100)
    pair, pooled = next(d for d in found.differences if d.name == "trace"), found.memorization["trace"]
    assert (pair.auc, pair.auc_low, pair.auc_high, pair.p) == (pooled.auc, pooled.auc_low, pooled.auc_high, pooled.p)
    assert pair.auc == (1 + pair.delta) / 2
    assert pair.to_json()["auc_low"] == (1 + pair.delta_low) / 2


def test_the_interval_covers_for_a_mixture_of_recipes():
    """Two recipes on each side in fixed numbers: the interval is for the mixture, and rather too wide than too short."""
    random = np.random.default_rng(4)
    shifts = np.repeat([0.0, 0.5, 1.0, 2.5], 6)
    one = shifts >= 1
    truth = np.mean([stats.norm.cdf((a - b) / math.sqrt(2)) for a in (1.0, 2.5) for b in (0.0, 0.5)])
    from landscape.comparison.memorized_runs import separation

    hits = []
    for _ in range(300):
        values = {"m": shifts + random.standard_normal(24)}
        d = separation(values, list(one), {"m": random}, 20)["m"]
        hits.append(d.auc_low <= truth <= d.auc_high)
    assert np.mean(hits) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


def test_no_auc_with_runs_of_one_kind_or_without_word():
    groups = {n: group({"trace": np.arange(5.0)}) for n in "ab"}
    assert compare(groups, draws=20).memorization == {}
    assert compare(groups, memorized={n: [True] * 5 for n in "ab"}, draws=20).memorization == {}
    few = compare(groups, memorized={"a": [True] + [False] * 4, "b": [False] * 5}, draws=20)
    assert few.memorization["trace"].auc_low is None
    assert "1 runs memorized, 9 did not: no interval for the AUC, which needs 5 of each" in few.remarks
    with pytest.raises(UsageError, match="expected 5 entries for group b, found 0"):
        compare(groups, memorized={"a": [True] * 5})


def test_who_memorizes():
    def recipe(corruption, level=None):
        return {"training": {"corruption": corruption, "corruption_level": level}}

    told = {c: memorizes(recipe(c)) for c in ("clean", "random-labels", "shuffled-pixels", "random-pixels", "gaussian")}
    assert told == {"clean": False, "random-labels": True, "shuffled-pixels": False, "random-pixels": True, "gaussian": True}
    assert memorizes(recipe("labels", 0.2)) is True
    assert memorizes(recipe("labels", 0.0)) is False
    noisy = recipe("labels", 0.4)
    assert memorizes(noisy | {"final": {"wrong_labels_fitted": 1.0, "train_accuracy": 1.0}}) is True
    assert memorizes(noisy | {"final": {"wrong_labels_fitted": 0.1, "train_accuracy": 0.64}}) is False, "stopped early"
    pixels = recipe("gaussian")
    assert memorizes(pixels | {"final": {"wrong_labels_fitted": None, "train_accuracy": 0.2}}) is False
    assert memorizes(pixels | {"final": {"wrong_labels_fitted": None, "train_accuracy": 1.0}}) is True
    assert memorizes(None) is None
    assert memorizes({"lr": 0.1}) is None
