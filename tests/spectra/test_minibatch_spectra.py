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
from landscape.results import MinibatchSpectra

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


def test_refusals(case):
    net, x, y, _ = case
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y))
    with pytest.raises(UsageError, match="expected mini-batches of 1 to 43 samples, found 44"):
        ls.minibatch_spectra(objective, 44)
    with pytest.raises(UsageError, match="at least 2 mini-batches"):
        ls.minibatch_spectra(objective, 4, batches=1)
