"""Curvature by layer and by filter against the blocks of a dense Hessian; the spectrum from one run."""

import json

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_hessian

from landscape.objective import Objective
from landscape.results import Block
from landscape.spectra import eigenpairs, spectrum
from landscape.spectra.block_curvature import breakdown
from landscape.spectra.known_pairs import heaviest


def of_case(number: int) -> tuple[Objective, np.ndarray]:
    model, loss, x, y = CASES[number].make(0)
    return Objective(model, loss, (x, y), dtype="float64"), dense_hessian(model, loss, x, y)


@pytest.mark.parametrize("number", [0, 3, 5], ids=lambda n: CASES[n].name)
@pytest.mark.parametrize("filters", [False, True])
def test_blocks_equal_the_dense_ones(number, filters):
    objective, hessian = of_case(number)
    found = breakdown(objective, filters=filters, probes=200, tol=1e-8)
    assert any(b.filter is not None for b in found) == filters
    blocks = [b for b in found if (b.filter is not None) == filters]
    members = {}
    for e in objective.layout:
        for i in range(e.size):
            if not filters:
                members.setdefault((e.layer, None), []).append(e.start + i)
            elif len(e.shape) > 1:
                members.setdefault((e.layer, i // (e.size // e.shape[0])), []).append(e.start + i)
    assert [(b.layer, b.filter) for b in blocks] == list(members)
    misses = 0
    for b in blocks:
        rows = members[b.layer, b.filter]
        own = hessian[np.ix_(rows, rows)]
        assert b.weights == len(rows)
        assert b.lambda_max.value == pytest.approx(np.linalg.eigvalsh(own)[-1], rel=1e-5, abs=1e-7)
        low, high = b.trace.interval(0.999)
        misses += not low - 1e-12 <= np.trace(own) <= high + 1e-12
        assert Block.from_json(json.loads(json.dumps(b.to_json()))) == b
    assert misses <= 1 + len(blocks) // 50


def test_the_heaviest_pairs_make_the_traces_of_blocks_more_certain(monkeypatch):
    """20 seeds: the intervals of all layers cover, and at a trained minimum they are narrower with the pairs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = torch.arange(60) % 3
        x = 2 * torch.randn(3, 6)[y] + 0.7 * torch.randn(60, 6)
        model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    loss = torch.nn.CrossEntropyLoss()
    objective, hessian = Objective(model.eval(), loss, (x, y), dtype="float64"), dense_hessian(model, loss, x, y)
    rows = {name: [i for e in es for i in range(e.start, e.stop)] for name, es in objective.layout.layers.items()}

    def run() -> tuple[int, float]:
        inside, widths = 0, []
        for seed in range(20):
            for layer in breakdown(objective, probes=16, generator=torch.Generator().manual_seed(seed)).layers:
                low, high = layer.trace.interval()
                inside += low <= np.diag(hessian)[rows[layer.layer]].sum() <= high
                widths.append((high - low) / np.trace(hessian))
        return inside, float(np.mean(widths))

    inside, width = run()
    monkeypatch.setattr("landscape.spectra.block_curvature.heaviest", lambda objective: None)
    assert inside >= 35, inside
    assert width < 0.75 * run()[1]


def test_pairs_that_weigh_little_are_not_looked_for():
    """A quarter of the 103 weights bounds the number of pairs: enough for 90 of them, little for 900 that are much alike."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))
    x, y = torch.randn(300, 6), torch.randn(300, 3)
    few, many = (Objective(model, torch.nn.MSELoss(), (x[:n], y[:n]), dtype="float64") for n in (30, 300))
    assert len(heaviest(few).rows) == 25
    assert heaviest(many) is None
    assert many.spent.gradients < 25 / 300  # a check takes a few


def test_layers_add_up_to_the_trace():
    objective, hessian = of_case(3)
    total = sum(b.trace.value for b in breakdown(objective, probes=400))
    assert total == pytest.approx(np.trace(hessian), rel=0.1)


def test_one_run_serves_density_and_eigenpairs():
    objective, hessian = of_case(0)
    truth = np.linalg.eigvalsh(hessian)[::-1]
    pairs, density = spectrum(objective, 3, probes=4, steps=40)
    np.testing.assert_allclose(pairs.values, np.r_[truth[:3], truth[-3:]], rtol=1e-6)
    assert pairs.converged.all()
    assert density.probes == 4
    assert pairs.matvecs <= eigenpairs(objective, 3, "both", generator=torch.Generator().manual_seed(0)).matvecs
