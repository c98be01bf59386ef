import functools

import numpy as np
import pytest
import torch
from torch import nn

from landscape.errors import UsageError
from landscape.measures import trace
from landscape.objective import Objective
from landscape.reparam import Symmetries, apply, find_symmetries, trace_along


@functools.cache
def made(seed: int = 0) -> tuple[nn.Module, Objective, Symmetries]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    data = (torch.randn(40, 4).double(), torch.randint(0, 3, (40,)))
    return model, Objective(model, nn.CrossEntropyLoss(), data, dtype="float64"), find_symmetries(model)


@pytest.mark.parametrize("layer", ["0", "2"])
@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0, 7.0, 300.0])
def test_it_is_what_the_measure_finds_after_rescaling(layer, alpha):
    model, objective, symmetries = made()
    along = trace_along(objective, symmetries, symmetries[layer], probes=16, generator=torch.Generator().manual_seed(3))
    moved = objective.with_model(apply(model, symmetries, symmetries.layerwise({layer: alpha})))
    found = trace(moved, probes=16, generator=torch.Generator().manual_seed(3))
    assert along.at(alpha).value == pytest.approx(found.value, rel=1e-9)
    assert along.at(alpha).stderr == pytest.approx(found.stderr, rel=1e-7)


def test_target_and_bound():
    model, objective, symmetries = made()
    along = trace_along(objective, symmetries, symmetries.default, probes=32)
    alpha = along.solve(1e5)
    moved = objective.with_model(apply(model, symmetries, symmetries.layerwise({symmetries.default.name: alpha})))
    assert trace(moved, probes=32, generator=torch.Generator().manual_seed(0)).value == pytest.approx(1e5, rel=1e-6)
    turn, least = along.flattest()
    assert all(along.at(turn * f).value >= least.value for f in (0.5, 0.9, 1.1, 2.0))
    assert along.solve(least.value * 1.01) == pytest.approx(turn, rel=0.5)
    with pytest.raises(UsageError, match="with the flattening bound"):
        along.solve(0.5 * least.value)


def test_bound_is_dinh_s_for_two_layers():
    """With the exact trace of the blocks the bound is 2 sqrt(tr H11 tr H22) + the rest; probes come near it."""
    _, objective, symmetries = made(1)
    hessian = objective.hvp(torch.eye(objective.dim, dtype=torch.float64)).diagonal()
    blocks = objective.layout.unflatten(hessian)
    up = float(blocks["0.weight"].sum() + blocks["0.bias"].sum())
    down = float(blocks["2.weight"].sum())
    rest = float(hessian.sum()) - up - down
    _, least = trace_along(objective, symmetries, symmetries["0"], probes=3000).flattest()
    assert abs(least.value - (2 * np.sqrt(up * down) + rest)) < 4 * least.stderr
