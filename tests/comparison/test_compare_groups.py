"""`compare` as a whole: what it puts together, what it leaves out, and what it warns of."""

import json
import math

import numpy as np
import pytest
from compared import group, run, scored
from scipy import stats

import landscape as ls
from landscape.comparison import compare
from landscape.errors import UsageError
from landscape.results import Comparison


def five(scale: float = 1.0, **fixed) -> list:
    return group({"trace": scale * np.arange(1.0, 6), "norm": scale * np.array([3.0, 1, 2, 5, 4])}, **fixed)


def test_a_table_of_two_groups():
    groups = {"a": five(), "b": group({"trace": np.array([2.0, 3.0]), "norm": np.array([2.0, 1.0])})}
    gaps = {"a": [0.1, 0.2, 0.3, 0.4, 0.5], "b": [0.2, 0.3]}
    result = compare(groups, gaps)
    assert result.table["trace"]["a"].median == 3.0
    assert result.table["trace"]["a"].is_interval
    assert 1.0 <= result.table["trace"]["a"].low < 3.0 < result.table["trace"]["a"].high <= 5.0
    b = result.table["trace"]["b"]
    assert (b.low, b.high, b.is_interval) == (2.0, 3.0, False)
    assert result.rank_correlation["trace"].tau == pytest.approx(1.0)
    assert [d.name for d in result.differences] == ["trace", "norm", "train_loss", "train_accuracy", "gap"]
    assert any("fewer than 5 runs in b (2)" in remark for remark in result.remarks)
    assert any("2/21 = 0.095: no difference can be significant at 5 %" in remark for remark in result.remarks)
    text = str(result)
    assert "trace" in text
    assert "{2, 3}" in text
    json.dumps(result.to_json(), allow_nan=False)
    assert isinstance(ls.compare(groups, gaps), Comparison)


def test_it_is_reproducible_and_no_measure_depends_on_the_others():
    groups = {"a": five(), "b": five(2.0)}
    first, again = compare(groups, seed=3), compare(groups, seed=3)
    assert first == again
    alone = compare({n: [run(trace=s["trace"].value) for s in runs] for n, runs in groups.items()}, seed=3)
    assert alone.table["trace"] == first.table["trace"]
    one, other = alone.differences[0], first.differences[0]
    assert (one.p, one.ratio_low, one.delta_low) == (other.p, other.ratio_low, other.delta_low)


def test_a_q_value_is_the_larger_of_all_tests_and_its_family():
    """Losses and accuracies that differ do not lower the bar for the measures, and those that do not are counted."""
    random = np.random.default_rng(2)
    groups = {n: group({f"m{i}": random.normal(i / 4 * (n == "b"), 1, 6) for i in range(6)}) for n in "ab"}
    test = {"a": scored([0.9] * 6, 0.1), "b": scored([0.2] * 6, 0.9)}
    for result in (compare(groups, test=test), compare(groups, test={n: scored([0.9] * 6) for n in "ab"})):
        measures = [d for d in result.differences if d.name in result.table]
        own = stats.false_discovery_control([d.p for d in measures])
        overall = stats.false_discovery_control([d.p for d in result.differences])[: len(measures)]
        assert [d.q for d in measures] == pytest.approx(np.maximum(own, overall))
    assert len(measures) == 6


def test_the_gap_comes_from_the_accuracies_with_its_error():
    groups = {"a": five()}
    result = compare(groups, test={"a": scored([0.9, 0.8, 0.7, 0.6, 0.5])})
    assert result.gaps["a"] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert result.scores["gap"]["a"][0].stderr == pytest.approx(math.hypot(0.01, 0.02))
    assert list(result.conditions) == ["train_loss", "train_accuracy", "test_loss", "test_accuracy", "gap"]
    assert result.differences == ()
    assert result.rank_correlation["trace"].tau == pytest.approx(1.0)


def test_measures_on_a_test_split_are_not_taken_for_training_losses():
    from dataclasses import replace

    groups = {n: [replace(s, provenance={"split": "test"}) for s in five()] for n in "ab"}
    assert "train_loss" not in compare(groups).scores
    assert "train_loss" in compare(groups, train={n: scored([1.0] * 5) for n in "ab"}).scores


def test_a_value_that_is_not_defined_leaves_its_measure_out_of_every_test():
    groups = {"a": five(), "b": five(2.0)}
    groups["b"][2] = run(trace=math.nan, norm=1.0)
    result = compare(groups, {"a": [0.1, 0.2, 0.3, 0.4, 0.5], "b": [0.1, 0.2, 0.3, 0.4, 0.5]})
    assert "trace" not in {d.name for d in result.differences}
    assert "trace" not in result.rank_correlation
    assert result.table["trace"]["b"].n == 4
    assert "trace is in no test: no value in 1 of 10 runs: not defined: no layers" in result.remarks
    norm = next(d for d in result.differences if d.name == "norm")
    tests = [d.p for d in result.differences]
    assert len(tests) == 4, "norm, loss, accuracy and gap: the measure left out is no test"
    assert norm.q == pytest.approx(stats.false_discovery_control(tests)[0])
    json.dumps(result.to_json(), allow_nan=False)


def test_a_measure_that_some_runs_lack_is_named():
    result = compare({"a": [run(trace=1.0), run(trace=2.0, norm=3.0)], "b": [run(trace=1.0)]})
    assert list(result.table) == ["trace"]
    assert "norm is in no test: not measured in 2 of 3 runs" in result.remarks


def test_infinities_are_ranked():
    a, b = five(), five(2.0)
    b[0] = run(trace=math.inf, norm=1.0)
    result = compare({"a": a, "b": b})
    trace = result.differences[0]
    assert (trace.ratio, trace.delta_low is None) == (None, False)
    assert result.table["trace"]["b"].high == math.inf
    assert any(r.startswith("infinite values in trace") for r in result.remarks)
    json.dumps(result.to_json(), allow_nan=False)


def test_unmatched_training_losses_come_first_with_the_numbers():
    losses = np.linspace(0.010, 0.0104, 5)
    groups = {"a": [run(x, trace=1.0) for x in losses], "b": [run(x + 0.001, trace=1.0) for x in losses]}
    result = compare(groups)
    (warning,) = result.warnings
    assert result.remarks[0] == warning
    assert "TRAINING LOSSES DIFFER: median 0.0102 in a, 0.0112 in b; a / b: q = 0.024. Curvature" in warning
    assert not any("single runs" in r for r in result.remarks), "a factor of 1.14"
    assert compare({"a": five(), "b": five(2.0)}).warnings == ()


def test_training_losses_that_no_test_calls_different_are_told_without_a_claim():
    few = compare({"a": [run(0.01, trace=1.0)], "b": [run(0.1, trace=1.0)]})
    assert few.warnings == ()
    untested = "whether training losses differ cannot be tested for a / b (too few runs): median 0.01 in a, 0.1 in b; curvature"
    assert few.remarks[0].startswith(untested)
    wide = "training losses of single runs range from 0.01 to 0.1 (factor 10); curvature changes with the loss"
    assert few.remarks[1] == wide
    losses = np.geomspace(0.01, 0.1, 10)
    alike = compare({"a": [run(x, trace=1.0) for x in losses[::2]], "b": [run(x, trace=1.0) for x in losses[1::2]]})
    assert alike.warnings == ()
    assert wide in alike.remarks
    assert not any("cannot be tested" in r for r in alike.remarks)
    assert (
        compare({"a": [run(x, trace=1.0) for x in (0.0, 0.0, 0.3)]})
        .remarks[0]
        .startswith("training losses of single runs range from 0 to 0.3; curvature")
    )
    assert not any("single runs" in r for r in compare({"a": [run(0.0, trace=1.0)] * 3}).remarks)


def test_one_file_counted_twice_is_warned_of():
    result = compare({"a": [run(sha256="1", trace=1.0), run(sha256="2", trace=1.0)], "b": [run(sha256="1", trace=2.0)]})
    assert any("THE SAME FILE SEVERAL TIMES" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((3, 3), "3 against 3 runs: the smallest p-value they can give is 2/20 = 0.1: no difference can be significant at 5 %"),
        ((1, 1), "1 against 1 runs: the smallest p-value they can give is 2/2 = 1: no difference"),
        ((4, 4), "2/70 = 0.029; with 4 tests, q = 0.05 needs at least 3 tests with that p-value"),
    ],
)
def test_what_few_runs_cannot_show(sizes, words):
    def few(n: int, scale: float) -> list:
        return group({m: scale * np.arange(1.0, n + 1) for m in ("trace", "norm", "sam")}, accuracy=None)

    result = compare({"a": few(sizes[0], 1.0), "b": few(sizes[1], 100.0)})
    assert any(words in r for r in result.remarks), result.remarks
    assert all(d.p == pytest.approx(d.smallest_p) for d in result.differences if d.name in result.table)
    possible = sizes == (4, 4)
    assert all(d.found == possible for d in result.differences if d.name in result.table)
    assert all(d.delta_low is None for d in result.differences)


def test_psi_over_recorded_hyperparameters():
    settings = [{"lr": i, "batch": j, "momentum": 0.9} for i in (1, 2, 3) for j in (1, 2, 3)]
    values = {"trace": np.array([10.0 * s["lr"] + s["batch"] for s in settings])}
    gaps = [s["lr"] - 0.1 * s["batch"] for s in settings]
    result = compare({"all": group(values)}, {"all": gaps}, hyperparameters={"all": settings})
    psi = result.granulated["trace"]
    assert psi.by_hyperparameter == {"lr": 1.0, "batch": -1.0}
    assert psi.psi == 0.0
    assert result.hyperparameters["all"][0] == {"lr": 1, "batch": 1}
    assert any(r.startswith("Ψ: no interval: 9 runs in pairs (8 needed), 9 pairs") for r in result.remarks)


def test_excluded_runs_are_kept_on_record():
    result = compare({"a": five()}, excluded=[("a", "x.pt", "training loss 0.3")])
    assert "x.pt of a is left out: training loss 0.3" in result.remarks
    assert result.to_json()["excluded"] == [{"group": "a", "checkpoint": "x.pt", "reason": "training loss 0.3"}]


def test_bad_requests():
    with pytest.raises(UsageError, match="expected groups as a dictionary, found list; pass"):
        compare([object(), object()])
    with pytest.raises(UsageError, match="expected runs in group a, found none"):
        compare({"a": []})
    with pytest.raises(UsageError, match="expected 5 entries for group a, found 2"):
        compare({"a": five()}, {"a": [0.1, 0.2]})
    with pytest.raises(UsageError, match="expected 5 entries for group b, found 0"):
        compare({"a": five(), "b": five()}, {"a": [0.1] * 5})


def test_a_comparison_survives_json():
    groups = {"a": five(), "b": five(2.0)}
    gaps = {"a": [0.1, 0.2, 0.3, 0.4, 0.5], "b": [0.2, 0.3, 0.1, 0.5, 0.2]}
    settings = {n: [{"lr": i, "batch_size": k} for i in range(5)] for k, n in enumerate(groups)}
    first = compare(groups, gaps, hyperparameters=settings, memorized={"a": [False] * 5, "b": [True] * 5})
    assert first.partial
    assert first.sign_error
    assert first.memorization
    again = Comparison.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False)))
    assert again.to_json() == first.to_json()
    assert again.difference_rows() == first.difference_rows()
    assert again.correlation_rows() == first.correlation_rows()
    assert again.partial_rows() == first.partial_rows()
    assert again.memorization_rows() == first.memorization_rows()
