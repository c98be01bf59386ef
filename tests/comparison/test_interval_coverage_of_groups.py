"""Every interval holds the truth about as often as it says, and a comparison within one recipe finds no difference."""

import math

import numpy as np
import pytest
from compared import group, run
from scipy import stats

from landscape.comparison import compare, correlation
from landscape.comparison.correlation import kendall
from landscape.comparison.granulated import granulated, granules
from landscape.comparison.intervals import median_interval, ratio_interval, superiority_interval
from landscape.results import Estimate, Evaluation

RUNS = 400
# Three standard deviations of a share of 400 at 95 %.
SLACK = 3 * math.sqrt(0.95 * 0.05 / RUNS)


def share(hits) -> float:
    return float(np.mean(list(hits)))


@pytest.mark.parametrize("n", [5, 6, 7, 8, 10, 20])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "cauchy"])
def test_median(kind, n):
    """Distribution-free; five runs can give 93.75 % and no more."""
    random = np.random.default_rng([n, len(kind)])
    draw, truth = {
        "normal": (random.standard_normal, 0.0),
        "lognormal": (lambda size: np.exp(2 * random.standard_normal(size)), 1.0),
        "cauchy": (random.standard_cauchy, 0.0),
    }[kind]
    ends = (median_interval(draw(n), random, 1000) for _ in range(RUNS))
    aim = 0.9375 if n == 5 else 0.95
    assert share(low <= truth <= high for low, high in ends) > aim - SLACK


def test_plain_percentiles_of_a_median_would_fall_short():
    """What the expansion of the percentiles is for: without it seven runs cover the median in 88 %."""
    random = np.random.default_rng(0)
    hits = []
    for _ in range(RUNS):
        medians = np.median(random.choice(random.standard_normal(7), (1000, 7)), axis=1)
        low, high = np.quantile(medians, (0.025, 0.975), method="inverted_cdf")
        hits.append(low <= 0 <= high)
    assert share(hits) < 0.93


@pytest.mark.parametrize("n", [5, 8, 15])
def test_ratio_of_medians(n):
    random = np.random.default_rng(n)

    def once():
        a, b = np.exp(0.7 * random.standard_normal(n)) * 3, np.exp(0.3 * random.standard_normal(n))
        return ratio_interval(a, b, random, 1000)

    assert share(low <= 3 <= high for low, high in (once() for _ in range(RUNS))) > 0.95 - SLACK


@pytest.mark.parametrize(
    ("sizes", "spreads"),
    [
        ((5, 5), (1, 0.01)),
        ((7, 7), (1, 0.01)),
        ((7, 7), (0.7, 0.05)),
        ((8, 8), (1, 0.1)),
        ((7, 30), (1, 0.01)),
        ((20, 7), (0.1, 1)),
    ],
)
def test_ratio_of_medians_of_unequal_spreads(sizes, spreads):
    """The ratio is as hard as the median of the group that varies; plain percentiles cover 88 % of 7 against 7."""
    random = np.random.default_rng([*sizes, round(100 * spreads[0])])

    def once():
        a, b = (np.exp(s * random.standard_normal(n)) for n, s in zip(sizes, spreads, strict=True))
        return ratio_interval(a, b, random, 1000)

    aim = 0.9375 if min(sizes) == 5 else 0.95
    assert share(low <= 1 <= high for low, high in (once() for _ in range(RUNS))) > aim - SLACK


@pytest.mark.parametrize(("m", "n"), [(5, 5), (5, 10), (10, 10), (5, 20), (20, 5), (5, 30)])
@pytest.mark.parametrize(("shift", "spread"), [(0, 1), (1, 1), (2.5, 1), (0, 3), (2, 3), (0, 4), (2, 4), (3, 5)])
def test_probability_of_superiority(m, n, shift, spread):
    """Overlap of half, some, and nearly none; spreads alike and up to fivefold. A bootstrap covers 43 % at shift 2.5."""
    random = np.random.default_rng([m, n, spread, round(10 * shift)])
    truth = stats.norm.cdf(shift / math.hypot(1, spread))

    def once():
        a, b = random.normal(shift, spread, m), random.normal(0, 1, n)
        return superiority_interval((a[:, None] > b).astype(float))

    assert share(low <= truth <= high for low, high in (once() for _ in range(RUNS))) > 0.95 - SLACK


def test_superiority_at_its_ends():
    assert superiority_interval(np.zeros((6, 6)))[0] == 0.0
    low, high = superiority_interval(np.ones((6, 6)))
    assert high == 1.0
    assert low == pytest.approx(1 - superiority_interval(np.zeros((6, 6)))[1], abs=1e-6)
    assert superiority_interval(np.full((6, 6), 0.5)) == pytest.approx(
        [1 - x for x in superiority_interval(np.full((6, 6), 0.5))][::-1]
    )


@pytest.mark.parametrize("n", [8, 12, 20])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.6, 0.85])
def test_kendall(n, tau):
    """Normal pairs, whose tau is 2/pi arcsin(correlation)."""
    random = np.random.default_rng([n, round(100 * tau)])
    r = math.sin(math.pi * tau / 2)

    def once():
        x = random.standard_normal(n)
        return kendall(np.exp(x), r * x + math.sqrt(1 - r * r) * random.standard_normal(n), random, 400)

    # The p-value is not looked at here; it is worth 10 ms.
    results = [once() for _ in range(RUNS // 2)]
    assert share(t.low <= tau <= t.high for t in results) > 0.95 - SLACK * math.sqrt(2)


@pytest.mark.parametrize("n", [8, 10, 15])
@pytest.mark.parametrize(("levels", "r", "tau"), [(9, 0.7, 0.5226), (9, 0.9, 0.7263), (1, 0.7, 0.5080), (1, 0.0, 0.0)])
def test_kendall_with_ties(n, levels, r, tau, monkeypatch):
    """A gap in whole steps, of nine or three values. Plain percentiles cover 84 to 93 % at eight and ten runs."""
    monkeypatch.setattr(correlation, "_p_value", lambda *_: math.nan)  # not looked at here, and worth 50 ms
    random = np.random.default_rng([n, levels, round(10 * r)])
    x, y = (random.standard_normal((2, 1_000_000)) for _ in range(2))
    gap = np.clip(np.round(r * x + math.sqrt(1 - r * r) * y), -(levels // 2 or 1), levels // 2 or 1)
    untied = (gap[0] != gap[1]).mean()
    assert (np.sign(x[0] - x[1]) * np.sign(gap[0] - gap[1])).mean() / math.sqrt(untied) == pytest.approx(tau, abs=0.004)
    hits = []
    for i in range(RUNS):
        sample = slice(i * n, (i + 1) * n)
        found = kendall(np.exp(x[0, sample]), gap[0, sample], random, 400)
        if found is not None:
            hits.append(found.low <= tau <= found.high)
    assert len(hits) > 0.98 * RUNS
    assert share(hits) > 0.95 - SLACK


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_granulated(repeats, effect):
    """Three by three settings, measure and gap with effects of both hyperparameters and a common part."""
    settings = [{"lr": i, "batch": j} for i in range(3) for j in range(3) for _ in range(repeats)]
    lr, batch = (np.array([s[k] for s in settings], float) for k in ("lr", "batch"))
    found = granules(settings)
    random = np.random.default_rng([repeats, int(effect)])

    def drawn():
        common = random.normal(0, 0.7, len(settings))
        noise = random.normal(0, 1, (2, len(settings)))
        return effect * (lr + 0.3 * batch) + common + noise[0], effect * (lr - 0.2 * batch) + common + noise[1]

    def agreement(m, g):
        per = {}
        for i in range(len(settings)):
            for j in range(i):
                apart = [k for k in ("lr", "batch") if settings[i][k] != settings[j][k]]
                if len(apart) == 1:
                    other = "batch" if apart[0] == "lr" else "lr"
                    per.setdefault(apart[0], {}).setdefault(settings[i][other], []).append(
                        np.sign(m[i] - m[j]) * np.sign(g[i] - g[j])
                    )
        return np.mean([np.mean([np.mean(p) for p in granule.values()]) for granule in per.values()])

    truth = np.mean([agreement(*drawn()) for _ in range(400 if repeats > 1 else 1500)])
    first = drawn()
    assert granulated(*first, found, random, 50).psi == pytest.approx(agreement(*first))
    if repeats == 1:
        assert granulated(*first, found, random, 50).low is None, "nine pairs are too few"
        return
    results = [granulated(*drawn(), found, random, 400) for _ in range(RUNS // 2)]
    assert share(r.low <= truth <= r.high for r in results) > 0.95 - SLACK * math.sqrt(2)


@pytest.mark.parametrize(
    ("runs", "spread"),
    [
        pytest.param((5, 5), 0.2, marks=pytest.mark.slow),
        ((4, 9), 0.5),
        ((3, 3), 0.5),
        pytest.param((5, 5), 0.03, marks=pytest.mark.slow),
        pytest.param((10, 10), 0.1, marks=pytest.mark.slow),
        pytest.param((10, 10), 1.0, marks=pytest.mark.slow),
        pytest.param((6, 6, 6), 0.2, marks=pytest.mark.slow),
    ],
)
def test_groups_of_one_recipe_do_not_differ_more_often_than_the_level_says(runs, spread):
    """Eight measures that share a factor, one heavy-tailed, one opposed, one in ties; two losses whose logarithms have this
    standard deviation: any difference found, and any warning, is false."""
    random = np.random.default_rng([*runs, round(100 * spread)])
    claims, single = 0, []
    trials = 400
    for seed in range(trials):
        groups, test = {}, {}
        for name, n in zip("abc", runs, strict=False):
            common = random.normal(0, 1, n)
            table = {f"m{i}": np.exp(0.8 * common + 0.6 * random.standard_normal(n)) for i in range(5)}
            table["heavy"] = np.exp(3 * common) * np.abs(random.standard_cauchy(n))
            table["opposed"] = -common + 0.5 * random.standard_normal(n)
            table["tied"] = np.round(common)
            losses = np.exp(spread * (0.6 * common + 0.8 * random.standard_normal((2, n))))
            groups[name] = [run(losses[0, i], None, **{m: float(v[i]) for m, v in table.items()}) for i in range(n)]
            test[name] = [Evaluation(Estimate(x), None) for x in losses[1]]
        result = compare(groups, test=test, seed=seed, draws=20)
        assert len(result.differences) == (8 + 2) * math.comb(len(runs), 2)
        claims += any(d.found for d in result.differences) or bool(result.warnings)
        single += [d.p <= 0.05 for d in result.differences if d.name in result.table]
    error = 2.6 * math.sqrt(0.05 * 0.95 / trials)
    assert claims / trials <= 0.05 + error
    assert np.mean(single) <= 0.05 + error


def test_groups_that_do_differ_are_found():
    random = np.random.default_rng(0)
    found = 0
    for seed in range(50):
        groups = {
            name: group({"trace": scale * np.exp(0.3 * random.standard_normal(8)), "other": random.standard_normal(8)})
            for name, scale in (("a", 1.0), ("b", 3.0))
        }
        trace = next(d for d in compare(groups, seed=seed, draws=20).differences if d.name == "trace")
        found += trace.found
    assert found >= 47


def test_false_discoveries_among_true_ones():
    """Three of ten measures differ, and all of them strongly: of what is called a difference at most 5 % is none."""
    random = np.random.default_rng(1)
    false = []
    for seed in range(200):
        groups = {}
        for name, scale in (("a", 1.0), ("b", 4.0)):
            common = random.normal(0, 1, 8)
            table = {f"null{i}": common + random.standard_normal(8) for i in range(7)}
            table |= {f"true{i}": scale * np.exp(0.2 * random.standard_normal(8)) for i in range(3)}
            groups[name] = group(table, accuracy=None)
        found = [d.name for d in compare(groups, seed=seed, draws=20).differences if d.found and d.name != "train_loss"]
        assert sum(name.startswith("true") for name in found) == 3
        false.append(sum(name.startswith("null") for name in found) / len(found))
    assert np.mean(false) <= 0.05 + 2.6 * np.std(false) / math.sqrt(200)


@pytest.mark.parametrize(("n", "ties"), [(6, True), (10, True), (10, False)])
def test_kendall_s_p_value_keeps_its_level(n, ties):
    """Gaps of a small test set come in steps."""
    random = np.random.default_rng([n, ties])

    def once():
        gaps = random.standard_normal(n)
        return kendall(np.exp(random.standard_normal(n)), np.round(gaps) if ties else gaps, random, 20)

    p = np.array([t.p for t in (once() for _ in range(300)) if t is not None])
    for level in (0.05, 0.2):
        assert np.mean(p <= level) <= level + 2.6 * math.sqrt(level * (1 - level) / len(p))
