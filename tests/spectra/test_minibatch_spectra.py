"""Extreme eigenvalues over mini-batches, against the dense Hessian of every mini-batch in float64."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import functional_call, hessian

import landscape as ls
from landscape.errors import UsageError
from landscape.report.exports.spreadsheet import minibatches_csv
from landscape.results import Estimate, MinibatchSpectra

SIZE, COUNT = 8, 7


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(43, 5, dtype=torch.float64), torch.randint(3, (43,))
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=10)
    found = ls.minibatch_spectra(objective, SIZE, batches=COUNT, tol=1e-9, generator=torch.Generator().manual_seed(3))
    return net, x, y, found


def dense_ends(net, x, y):
    """Smallest and largest eigenvalue of the Hessian of the mean loss, formed as a whole."""
    named = {n: p.detach() for n, p in net.named_parameters()}
    sizes = [p.numel() for p in named.values()]

    def value(theta):
        parts = {n: t.view(p.shape) for (n, p), t in zip(named.items(), theta.split(sizes), strict=True)}
        return nn.functional.cross_entropy(functional_call(net, parts, (x,)), y)

    values = torch.linalg.eigvalsh(hessian(value)(torch.cat([p.reshape(-1) for p in named.values()])))
    return float(values[0]), float(values[-1])


def test_against_the_dense_hessians_of_the_same_mini_batches(case):
    net, x, y, found = case
    generator = torch.Generator().manual_seed(3)
    batches = [rows for _ in range(2) for rows in torch.randperm(43, generator=generator).split(SIZE) if len(rows) == SIZE]
    wanted = np.array([dense_ends(net, x[rows], y[rows]) for rows in batches[:COUNT]])
    assert np.allclose(found.smallest, wanted[:, 0], atol=1e-10)
    assert np.allclose(found.largest, wanted[:, 1], atol=1e-10)
    low, high = dense_ends(net, x, y)
    assert np.allclose([found.whole_smallest.value, found.whole_largest.value], [low, high], rtol=1e-5)


def test_means_shares_and_forms(case):
    *_, found = case
    assert found.mean_largest.value == pytest.approx(found.largest.mean())
    assert found.mean_largest.stderr == pytest.approx(found.largest.std(ddof=1) / COUNT**0.5)
    assert found.negative.value == np.mean(found.smallest < 0)
    hits = int((found.smallest < 0).sum())
    wilson = stats.binomtest(hits, len(found)).proportion_ci(0.95, method="wilson")
    assert found.negative.interval() == pytest.approx(tuple(wilson))
    again = MinibatchSpectra.from_json(json.loads(json.dumps(found.to_json())))
    assert np.array_equal(again.largest, found.largest)
    assert str(again) == str(found)
    data = found.to_xarray()
    assert np.array_equal(data["lambda_max"].values, found.largest)
    lines = minibatches_csv(found).split()
    assert len(lines) == COUNT + 1
    assert float(lines[1].split(",")[1]) == found.largest[0]
    counts = sum(bar.get_height() for bar in found.plot().patches)
    assert counts == 2 * COUNT


@pytest.fixture(scope="module")
def singular():
    """The last layer of a network: softmax leaves the Hessian of its weights singular, so lambda_min is 0, never below."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 4))
    x, y = torch.randn(96, 5), torch.randint(4, (96,))
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params=["2.*"])
    pairs = ls.eigenpairs(objective, 2, which="both")
    return net, x, y, objective, pairs, ls.minibatch_spectra(objective, SIZE, batches=12, whole=pairs)


def test_a_value_within_its_residual_is_no_sign(singular):
    net, x, y, *_, found = singular
    head = nn.Sequential(net[2]).double()
    hidden = net[1](nn.functional.linear(x, net[0].weight, net[0].bias)).detach().double()
    low, high = dense_ends(head, hidden[:SIZE], y[:SIZE])
    assert abs(low) < 1e-12 * high  # the truth
    assert (np.abs(found.smallest) <= found.residuals[:, 1]).all()
    assert (found.negative.value, found.positive.value, found.untold.value) == (0, 0, 1)
    assert set(found.signs) == {0}
    assert not found.told()[1].any()
    assert np.array_equal(found.told()[0], found.largest)
    row = found.rows()[1]
    assert row[1] == row[-1] == "0 within its residual"
    assert row[3] == "0, 0, 0"
    assert float(row[-2]) == pytest.approx(found.residuals[:, 1].max(), rel=0.05)
    assert "cannot be told in 100 %" in str(found)
    assert found.to_json()["untold"]["value"] == 1
    assert "cannot be told" in minibatches_csv(found)
    assert {r["lambda_min_sign"] for r in found.records()} == {"cannot be told"}
    assert not found.to_xarray()["lambda_min_sign"].values.any()
    axes = found.plot(caption=True)
    assert f"{len(found)} are 0 within their residuals" in " ".join(axes.get_legend().get_texts()[0].get_text().split())
    assert "cannot be told in 100 %" in " ".join(t.get_text() for t in axes.get_figure().texts)


def test_signs_beyond_the_residual_count():
    values, residuals = np.array([-3.0, -1.0, 0.0, 1.0, 3.0]), np.full((5, 2), 2.0)
    one = Estimate(5.0, 0.1, "residual", 3)
    found = MinibatchSpectra(4, 20, values + 9, values, residuals, np.ones((5, 2), bool), one, one, 9)
    assert found.signs.tolist() == [-1, 0, 0, 0, 1]
    assert [e.value for e in (found.negative, found.positive, found.untold)] == [0.2, 0.2, 0.6]
    assert found.sign_words().tolist() == ["negative", *["cannot be told"] * 3, "positive"]


def test_all_samples_have_one_smallest_eigenvalue(singular):
    *_, objective, pairs, found = singular
    assert found.whole_smallest.value == pairs.values[-1]
    assert found.whole_largest.value == pairs.values[0]
    with pytest.raises(UsageError, match="expected eigenpairs of both ends, found the largest ones"):
        ls.minibatch_spectra(objective, SIZE, whole=ls.eigenpairs(objective, 1))


def test_refusals(case):
    net, x, y, _ = case
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y))
    with pytest.raises(UsageError, match="expected mini-batches of 1 to 43 samples, found 44"):
        ls.minibatch_spectra(objective, 44)
    with pytest.raises(UsageError, match="at least 2 mini-batches"):
        ls.minibatch_spectra(objective, 4, batches=1)


def drawn_spectra(largest, smallest, residual=0.0):
    """Mini-batches with these eigenvalues, all of one residual."""
    n, one = len(largest), Estimate(1.0)
    return MinibatchSpectra(8, 80, largest, smallest, np.full((n, 2), residual), np.ones((n, 2), bool), one, one, 1)


def test_the_interval_of_a_positive_mean_is_positive_and_covers_it():
    """Log-normal eigenvalues of 8 mini-batches: of 1,000 intervals about 95 % hold the mean, and none reaches below 0.

    The symmetric interval goes below 0 in the widest of them, and covers no more often.
    """
    generator = np.random.default_rng(3)
    truth, sigma = np.exp(0.9**2 / 2), 0.9
    covered, symmetric, below = 0, 0, 0
    for values in np.exp(sigma * generator.standard_normal((1000, 8))):
        mean = drawn_spectra(values, -values).mean_largest
        low, high = mean.interval()
        assert 0 < low < mean.value < high
        half = stats.t.ppf(0.975, 7) * mean.stderr
        covered += low <= truth <= high
        symmetric += abs(mean.value - truth) <= half
        below += mean.value < half
    assert below > 50
    assert 860 <= symmetric <= covered <= 975


def test_a_mean_of_either_sign_has_a_symmetric_interval_and_a_negative_one_a_negative():
    values = np.array([-1.0, 0.5, 2.0])
    low, high = drawn_spectra(values, values).mean_largest.interval()
    assert low + high == pytest.approx(2 * values.mean())
    low, high = drawn_spectra(values + 3, -np.array([0.1, 0.2, 4.0])).mean_smallest.interval()
    assert low < high < 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_rounding_does_not_choose_the_interval(sign):
    values = np.array([sign * 1e-9] * 4 + [0.2, 0.5, 1.0, 3.0])
    mean = drawn_spectra(values + 5, values, residual=1e-6).mean_smallest
    low, high = mean.interval()
    assert mean.kind == "t"
    assert low < 0 < high
    assert low + high == pytest.approx(2 * values.mean())
    nothing = drawn_spectra(values + 5, sign * np.linspace(1e-9, 1e-8, 8), residual=1e-6)
    low, high = nothing.mean_smallest.interval()
    assert nothing.untold.value == 1
    assert low + high == pytest.approx(2 * nothing.mean_smallest.value)
    assert nothing.mean_largest.kind == "log t"  # chosen by each end's own values
