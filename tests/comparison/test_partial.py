"""Partial rank correlation, against regressions of SciPy's ranks, and on populations whose answer is known."""

import math

import numpy as np
import pytest
from compared import group, scored
from scipy import stats

from landscape.comparison import compare
from landscape.comparison.partial import Controls, partial_spearman
from landscape.errors import UsageError

RUNS = 300
SLACK = 3 * math.sqrt(0.95 * 0.05 / RUNS)


def residuals(ranks: np.ndarray, columns: list[np.ndarray]) -> np.ndarray:
    """What a least-squares regression on a constant and the columns leaves."""
    a = np.column_stack([np.ones(len(ranks)), *columns])
    return ranks - a @ np.linalg.lstsq(a, ranks, rcond=None)[0]


def expected(x: np.ndarray, y: np.ndarray, columns: list[np.ndarray]) -> float:
    return stats.pearsonr(*(residuals(stats.rankdata(v), columns) for v in (x, y))).statistic


def held(losses: np.ndarray) -> Controls:
    return Controls([{} for _ in losses], {"train_loss": losses}, ["train_loss"])


@pytest.mark.parametrize("levels", [4, 1000])
def test_one_control_by_ranks_is_the_textbook_formula(levels):
    random = np.random.default_rng(levels)
    x, y, z = random.integers(0, levels, (3, 30)).astype(float)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    rho = partial_spearman(x, y, held(z), random, 100)
    assert rho.rho == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))
    assert rho.controls == ("train_loss",)
    t = rho.rho * math.sqrt((30 - 3) / (1 - rho.rho**2))
    assert rho.p == pytest.approx(2 * stats.t.sf(abs(t), 27))


def test_several_controls_are_regressed_out_together():
    random = np.random.default_rng(0)
    n = 60
    lr, batch = random.choice([0.1, 0.2, 0.4], n), random.choice(["16", "full"], n)
    loss, x, y = random.standard_normal((3, n))
    settings = [{"lr": float(a), "batch_size": b, "seed": i} for i, (a, b) in enumerate(zip(lr, batch, strict=True))]
    controls = Controls(settings, {"train_loss": loss}, ["lr", "batch_size", "train_loss", "momentum"])
    assert controls.names == ("lr", "batch_size", "train_loss"), "a momentum that does not vary is not held"
    rho = partial_spearman(x + lr, y - lr + (batch == "16"), controls, random, 100)
    columns = [lr == 0.2, lr == 0.4, batch == "full", stats.rankdata(loss)]
    assert rho.rho == pytest.approx(expected(x + lr, y - lr + (batch == "16"), columns))


def test_a_number_drawn_at_random_is_held_by_its_ranks():
    random = np.random.default_rng(1)
    lr, x, y = np.exp(random.standard_normal((3, 40)))
    controls = Controls([{"lr": float(v)} for v in lr], {}, ["lr"])
    assert len(controls) == 1
    assert partial_spearman(x, y, controls, random, 50).rho == pytest.approx(expected(x, y, [stats.rankdata(lr)]))


def test_resampled_values_are_those_of_the_repeated_runs():
    """The bootstrap's weighted ranks and regressions are those of a sample in which runs stand several times."""
    from landscape.comparison.partial import _below, _partial

    random = np.random.default_rng(2)
    n = 25
    batch, loss, x, y = random.choice([16, 64, 256], n), *random.standard_normal((3, n))
    controls = Controls([{"batch_size": int(b)} for b in batch], {"train_loss": loss}, ["batch_size", "train_loss"])
    weights = random.multinomial(n, np.full(n, 1 / n), 20).astype(float)
    for w, rho in zip(weights, _partial(weights, _below(x), _below(y), controls), strict=True):
        i = np.repeat(np.arange(n), w.astype(int))
        columns = [batch[i] == 64, batch[i] == 256, stats.rankdata(loss[i])]
        assert rho == pytest.approx(expected(x[i], y[i], columns))


def drawn(random: np.random.Generator, n: int, direct: float) -> tuple[np.ndarray, ...]:
    """Measure and gap that both follow the batch size, in other ways, and the training loss; `direct` is what is left."""
    batch, loss, noise = np.resize([16, 64, 256], n), random.standard_normal(n), random.standard_normal((2, n))
    measure = np.sqrt(batch) / 4 + 0.5 * loss + noise[0]
    gap = -30 / batch + 0.5 * loss + direct * noise[0] + math.sqrt(1 - direct**2) * noise[1]
    return measure, gap, batch, loss


def found(random: np.random.Generator, measure, gap, batch, loss, draws: int):
    settings = [{"batch_size": int(b)} for b in batch]
    controls = Controls(settings, {"train_loss": loss}, ["lr", "batch_size", "train_loss"])
    return partial_spearman(measure, gap, controls, random, draws)


def test_what_comes_from_the_batch_size_alone_is_nothing():
    random = np.random.default_rng(3)
    measure, gap, *held_fixed = drawn(random, 1500, 0.0)
    assert stats.spearmanr(measure, gap).statistic > 0.4
    assert found(random, measure, gap, *held_fixed, 50).rho == pytest.approx(0, abs=0.07)
    assert found(random, *drawn(random, 1500, 0.8), 50).rho > 0.6


@pytest.mark.parametrize("n", [12, 24])
@pytest.mark.parametrize("direct", [0.0, 0.8])
def test_its_interval_covers(n, direct):
    x, y, batch, loss = drawn(np.random.default_rng(0), 60_000, direct)
    truth = expected(x, y, [batch == 64, batch == 256, stats.rankdata(loss)])
    random = np.random.default_rng([n, round(10 * direct)])
    results = [found(random, *drawn(random, n, direct), 250) for _ in range(RUNS)]
    assert np.mean([t.low <= truth <= t.high for t in results]) > 0.95 - SLACK
    if direct == 0:
        assert abs(truth) < 0.02
        assert np.mean([t.p <= 0.05 for t in results]) < 0.05 + SLACK


def test_when_there_is_no_interval_or_no_value():
    random = np.random.default_rng(4)
    x, y, z = random.standard_normal((3, 8))
    assert partial_spearman(x, y, held(z), random, 50).low is not None, "8 runs, one control: five degrees of freedom"
    assert partial_spearman(x[:7], y[:7], held(z[:7]), random, 50).low is None
    assert partial_spearman(x, y, held(np.ones(8)), random, 50) is None, "nothing varies that could be held"
    assert partial_spearman(x, z, held(np.exp(z)), random, 50) is None, "the control determines the rank"
    assert partial_spearman(x[:3], y[:3], held(z[:3]), random, 50) is None, "no degree of freedom"
    perfect = partial_spearman(x, x**3, held(z), random, 50)
    assert (round(perfect.rho, 9), perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(2 * 0.025 ** (1 / 2) - 1)


def test_compare_holds_what_it_is_told():
    random = np.random.default_rng(5)
    batch = np.repeat([16.0, 256.0], 20)
    groups = {"all": group({"trace": batch + random.standard_normal(40), "norm": random.standard_normal(40)})}
    test = {"all": scored(list(0.9 - 0.001 * batch + 0.01 * random.standard_normal(40)))}
    settings = {"all": [{"batch_size": b, "width": w} for b, w in zip(batch, np.tile([1, 2], 20).tolist(), strict=True)]}
    result = compare(groups, test=test, hyperparameters=settings, draws=200)
    trace = result.partial["trace"]
    assert result.rank_correlation["trace"].low > 0.3
    assert trace.low < 0 < trace.high
    assert trace.controls == ("batch_size",), "all training losses are equal, no learning rate is recorded"
    expected_q = stats.false_discovery_control([result.partial[m].p for m in ("trace", "norm")])
    assert [result.partial[m].q for m in ("trace", "norm")] == pytest.approx(expected_q)
    other = compare(groups, test=test, hyperparameters=settings, draws=200, controls=["width"])
    assert other.partial["trace"].controls == ("width",)
    assert other.partial["trace"].low > 0.3
    with pytest.raises(UsageError, match="expected a control that the runs record, found 'widht'"):
        compare(groups, test=test, hyperparameters=settings, controls=["widht"])
    none = compare(groups, test=test, draws=50)
    assert none.partial == {}
    assert "no partial rank correlation: nothing that could be held fixed varies, or there are too few runs" in none.remarks
