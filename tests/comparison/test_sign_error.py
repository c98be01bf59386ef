"""Sign error in the worst environment, against a loop over pairs and on populations whose answer is known."""

import itertools
import math

import numpy as np
import pytest
from compared import group
from scipy import stats

from landscape.comparison import compare
from landscape.comparison.sign_error import environments, sign_error

RUNS = 200
SLACK = 3 * math.sqrt(0.95 * 0.05 / RUNS)


def grid(**values) -> list[dict]:
    """Six runs of every combination."""
    return [dict(zip(values, v, strict=True)) for v in itertools.product(*values.values()) for _ in range(6)]


def loop(values, gaps, settings) -> dict[frozenset, float]:
    """Sign error of every pair of settings that differ in one entry."""
    kinds = sorted({tuple(s.items()) for s in settings})
    out = {}
    for a, b in itertools.combinations(kinds, 2):
        if len(set(a) - set(b)) != 1:
            continue
        first, second = ([i for i, s in enumerate(settings) if tuple(s.items()) == k] for k in (a, b))
        errors = []
        for i in first:
            for j in second:
                order = np.sign(values[i] - values[j]) * np.sign(gaps[i] - gaps[j])
                errors.append({1: 0.0, 0: 0.5, -1: 1.0}[order])
        out[frozenset((a, b))] = np.mean(errors)
    return out


def test_every_environment_by_a_loop_over_its_pairs():
    random = np.random.default_rng(0)
    settings = grid(lr=[1, 2], batch=[16, 64, 256])
    gaps = np.array([10.0 * s["lr"] + s["batch"] for s in settings]) + np.round(random.standard_normal(36))
    values = np.round(2 * random.standard_normal(36))
    expected = loop(values, gaps, settings)
    found = sign_error(values, gaps, environments(settings, gaps))
    assert sorted(found.by_environment.values()) == pytest.approx(sorted(expected.values()))
    assert len(expected) == 9
    assert found.worst == max(expected.values()) == found.by_environment[found.environment]
    assert found.passed_over == 0
    assert "batch 16 / 64 (lr 2)" in found.by_environment


def test_a_measure_that_inverts_one_environment_is_told_with_its_name():
    """The measure follows the gap everywhere but under the learning rate at the largest batch."""
    random = np.random.default_rng(1)
    settings = grid(lr=[1, 2], batch=[16, 64, 256])
    gaps = np.array([100.0 * s["lr"] + s["batch"] for s in settings]) + random.standard_normal(36)
    values = gaps * np.array([1.0 if s["batch"] < 256 else -1.0 for s in settings]) + 1000 * np.array(
        [s["batch"] == 256 for s in settings]
    )
    found = sign_error(values, gaps, environments(settings, gaps))
    assert (found.worst, found.environment) == (1.0, "lr 1 / 2 (batch 256)")
    one = [i for i, s in enumerate(settings) if s["batch"] == 256]
    alone = sign_error(values[one], gaps[one], environments([settings[i] for i in one], gaps[one]))
    assert alone.low > 0.5 > found.low, "the worst of nine is not as sure as one"
    assert sign_error(np.exp(gaps / 100), gaps, environments(settings, gaps)).worst == 0.0
    assert sign_error(-gaps, gaps, environments(settings, gaps)).worst == 1.0
    assert sign_error(np.ones(36), gaps, environments(settings, gaps)).worst == 0.5, "ties count half"


def test_only_where_the_order_of_the_gap_is_known():
    random = np.random.default_rng(2)
    settings = grid(lr=[1, 2], batch=[16, 64])
    gaps = np.array([10.0 * s["lr"] for s in settings]) + random.standard_normal(24)
    found = environments(settings, gaps)
    assert list(found.runs) == ["lr 1 / 2 (batch 16)", "lr 1 / 2 (batch 64)"]
    assert found.passed_over == 2
    few = environments(settings[::2], gaps[::2])
    assert (few.runs, few.passed_over) == ({}, 4), "three runs each"
    lost = sign_error(gaps, gaps, few)
    assert lost.worst is None
    assert lost.reason.startswith("of 4 pairs of settings that differ in one hyperparameter, none has 5 runs each")


@pytest.mark.parametrize("runs", [5, 8])
@pytest.mark.parametrize("slopes", [(1.0,), (1.0, 1.0, 1.0), (1.5, 0.5, -0.5)])
def test_its_interval_holds_the_worst_of_the_true_errors(runs, slopes):
    """One environment for each slope: the gap rises by 4 standard deviations, the measure by the slope.

    The estimate itself lies above the truth, as the largest of several.
    """
    settings = [{"task": k, "lr": lr} for k in range(len(slopes)) for lr in (0, 1) for _ in range(runs)]
    truth = max(stats.norm.cdf(-s / math.sqrt(2)) for s in slopes)
    random = np.random.default_rng([runs, len(slopes), round(10 * slopes[-1]) + 99])
    lr = np.array([s["lr"] for s in settings])
    found = []
    for _ in range(RUNS):
        gaps = 100.0 * lr + 0.01 * random.standard_normal(len(lr))  # tasks alike: no environment between them but by chance
        values = np.array([slopes[s["task"]] * s["lr"] for s in settings]) + random.standard_normal(len(lr))
        pairs = environments(settings, gaps)
        pairs = type(pairs)({k: v for k, v in pairs.runs.items() if k.startswith("lr")}, pairs.passed_over)
        found.append(sign_error(values, gaps, pairs))
    assert np.mean([e.low <= truth <= e.high for e in found]) > 0.95 - SLACK
    if len(slopes) == 3 and slopes[0] == slopes[1]:
        assert np.mean([e.worst for e in found]) > truth + 0.05


def test_compare_has_it_for_every_measure():
    settings = [{"lr": lr} for lr in (1, 2) for _ in range(5)]
    gaps = list(np.arange(10.0))
    found = compare({"all": group({"trace": np.arange(10.0), "norm": -np.arange(10.0)})}, {"all": gaps},
                    hyperparameters={"all": settings}, draws=50)  # fmt: skip
    assert {m: (e.worst, e.environment) for m, e in found.sign_error.items()} == {
        "trace": (0.0, "lr 1 / 2"),
        "norm": (1.0, "lr 1 / 2"),
    }
    assert found.partial_rows()[1][3:] == (f"1.00 [{found.sign_error['norm'].low:.2f}, 1.00]", "lr 1 / 2")
    assert compare({"all": group({"trace": np.arange(10.0)})}, {"all": gaps}, draws=50).sign_error == {}
