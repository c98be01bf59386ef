"""Arpit et al.: what is read off a run, and claims that follow the numbers."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ls
from experiments.common.options import Options
from experiments.patterns_first.claims import at_edge, judged, table
from experiments.patterns_first.runs import CONDITIONS, crossing, gini, peak, planned, samples_of, spaced

GIVEN = Options(None, 1000, 8, (0, 1, 2, 3, 4), Path("runs"), 1, "cpu", draw=False)


def test_gini_is_the_mean_difference_of_pairs_over_twice_the_mean():
    x = [0.5, 3.0, 0.0, 1.5, 7.0]
    expected = sum(abs(a - b) for a, b in itertools.product(x, x)) / (2 * len(x) ** 2 * np.mean(x))
    assert gini(x) == pytest.approx(expected)


def test_gini_of_equal_numbers_and_of_one_that_has_all():
    assert gini([2.0, 2.0, 2.0]) == pytest.approx(0.0)
    assert gini([0.0, 0.0, 0.0, 5.0]) == pytest.approx(0.75)


def test_epochs_are_spaced_on_a_log_scale_from_1_to_the_last():
    assert spaced(100, 3) == [1, 10, 100]
    assert spaced(3, 10) == [1, 2, 3]
    assert spaced(1, 5) == [1]


def test_crossing_is_linear_between_epochs():
    assert crossing([0, 2, 4], [0.1, 0.3, 0.7], 0.5) == pytest.approx(3.0)
    assert crossing([0, 1], [0.6, 0.7], 0.5) == 0.0
    assert crossing([0, 1], [0.1, 0.2], 0.5) is None
    assert crossing([0, 1], [None, None], 0.5) is None


def test_the_peak_of_one_half_is_read_off_the_other():
    halves = [(0.2, 0.2), (0.9, 0.6), (0.7, 0.8), (0.5, 0.5)]
    found = peak([0, 1, 2, 3], halves)
    assert found["peak_above_final"] == pytest.approx(((0.6 - 0.5) + (0.7 - 0.5)) / 2)
    assert found["peak_epoch"] in (1.0, 2.0)


def test_noise_around_a_constant_accuracy_has_no_peak_on_average():
    generator = np.random.default_rng(0)
    above = [peak(range(20), generator.normal(0.7, 0.02, (20, 2)))["peak_above_final"] for _ in range(400)]
    assert abs(np.mean(above)) < 0.004
    naive = [max(x) - x[-1] for x in generator.normal(0.7, 0.02, (400, 20))]
    assert np.mean(naive) > 0.02


def test_sensitivity_is_the_l1_norm_of_the_gradient_in_the_input():
    torch.manual_seed(0)
    net, x, y = nn.Linear(3, 2).double(), torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    fitted, sensitivity = samples_of(ls.Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64"))
    p = net(x).softmax(1) - nn.functional.one_hot(y, 2)
    assert torch.allclose(sensitivity, (p @ net.weight).abs().sum(1).detach())
    assert torch.equal(fitted, net(x).argmax(1) == y)


def test_the_edge_is_where_lambda_max_was_from_first_to_last_time_above_it():
    run = {"edge": 10.0, "lambda_max": [2.0, 8.0, 10.5, 9.5, 10.0, 12.0, 4.0, 1.0]}
    assert at_edge(run) == pytest.approx(1.05)
    assert at_edge(run | {"edge": 10.2}) is None, "two points are no plateau"
    assert at_edge(run | {"edge": 20.0}) is None


def made_up(**changes):
    """Runs of digits as the paper would have them; `changes` replace a number of every run with noise."""
    runs = []
    for item in planned(GIVEN):
        jitter = 0.01 * item["seed"]
        clean = item["condition"] == "clean"
        if item["kind"] == "descent":
            at = np.array([2.0, 9.0, 10.2 + jitter, 10.4, 10.3, 3.0]) * changes.get("edge", 1.0)
            runs.append({"item": item, "epochs": [0, 10, 20, 30, 40, 50], "lambda_max": at.tolist(), "edge": 10.0})
            continue
        run = {
            "half_right": 2.0 + jitter,
            "half_wrong": 50.0 + jitter if item["condition"].startswith("labels") else None,
            "peak_epoch": 10.0 + item["seed"],
            "peak_above_final": 0.0 if clean else 0.1 + jitter,
            "gini": 0.6 + jitter if clean else 0.4,
            "final": {"epochs": 100, "test_accuracy": 0.9},
            "measured": [measured(e, (0.01 if clean else 0.1) * e**0.5 + jitter * e / 1000) for e in (1, 10, 50, 100)],
        }
        if not clean:
            run |= {k: v + 0.1 * jitter if isinstance(v, float) else v for k, v in changes.items() if k in run}
            if "csr" in changes:
                first, last = changes["csr"]
                run["measured"] = [measured(1, first), measured(100, last + 0.1 * jitter)]
        runs.append({"item": item, **run})
    return runs


def measured(epoch, csr):
    """What is measured at an epoch."""
    return {"epoch": epoch, "csr": csr, "lambda_max": 5.0, "traces": {"fc1": 2.0}}


def holds(runs, words):
    (claim,) = [c for c in judged(runs, GIVEN)["claims"] if words in c["claim"]]
    return claim["holds"]


def test_the_paper_is_reproduced_by_runs_as_it_describes_them():
    assert judged(made_up(), GIVEN)["verdict"] == "reproduced"


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("half of the right labels", {"half_right": 60.0}),
        ("has a peak", {"peak_above_final": -0.01}),
        ("peak comes before", {"peak_epoch": 90.0}),
        ("critical for noise", {"csr": (0.0, 0.0)}),
        ("after the first epoch", {"csr": (0.3, 0.1)}),
        ("Gini coefficient", {"gini": 0.8}),
        ("full-batch", {"edge": 1.3}),
    ],
)
def test_a_claim_fails_when_its_numbers_do(words, changes):
    assert holds(made_up(), words) is True
    assert holds(made_up(**changes), words) is False


def test_what_cannot_rise_cannot_be_told():
    assert holds(made_up(half_wrong=1.0), "than at the peak") is None, "the peak comes after"
    assert holds(made_up(csr=(0.95, 0.5)), "after the first epoch") is None, "nearly all are critical from the start"


def test_a_claim_cannot_be_told_when_seeds_disagree():
    runs = made_up()
    for run in runs:
        if run["item"]["condition"].startswith("labels") and run["item"]["kind"] == "stochastic":
            run["peak_above_final"] = 0.1 * (-1) ** run["item"]["seed"]
    assert holds(runs, "has a peak") is None


def test_the_table_has_a_row_for_every_condition():
    rows = table(made_up())
    assert [r["condition"] for r in rows] == list(CONDITIONS)
    assert rows[0]["half_wrong"] is None
    assert rows[1]["half_wrong"]["n"] == 5
