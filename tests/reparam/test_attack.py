"""Climbing a measure along all orbits: within the budget, the same function, and nothing where nothing moves."""

import math

import pytest
import torch
from symmetric_networks import BiasedAttention, Symmetric
from test_moving import attention, grid
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError
from landscape.objective import Objective
from landscape.reparam import Symmetries, attack, certificate, find_symmetries
from landscape.reparam.moving.move import Size
from landscape.reparam.moving.orbits import Factors, Matrices, blocks_of
from landscape.reparam.moving.same_function import compare
from landscape.symmetry.mixing.mixtures import Mixing, Shift

BUDGET = Size(4.0, 9.0)


def network() -> tuple[nn.Module, Tensor, Symmetries, Objective]:
    """Attention in float64 with the symmetries written by hand, and its scales as found."""
    model, x, y, loss = Symmetric("net", BiasedAttention).make()
    scales = find_symmetries(model, x)
    keys = Shift("keys", {"k.bias": grid(model.k.bias)[None]}, uniform=False)
    symmetries = Symmetries(scales.units, (), scales.scalings, scales.neurons, attention(model), (keys,))
    return model, x, symmetries, Objective(model, loss, (x, y), dtype="float64")


def test_a_measure_is_climbed_and_the_function_stays() -> None:
    model, x, symmetries, objective = network()
    found = attack(objective, model, symmetries, "adaptive_trace:probes=8", evaluations=50)
    assert found.families == ("pair", "shift")  # it survives layers and neurons
    assert found.moved
    assert found.factor > 2
    assert 24 <= found.evaluations <= 50
    assert sum(found.gains.values()) == pytest.approx(found.best - found.start)
    assert set(found.gains) <= {"pair", "shift"}, "what is proven to survive gives nothing"
    assert compare(model, found.model, x, tolerance=1e-9) > 0
    again = certificate(objective, found.model, measures=["adaptive_trace:probes=8"], symmetry=found.families)
    assert again.same_function
    assert again.rows[0].after.value == pytest.approx(found.best)
    assert "a lower bound on the worst case along pair, shift" in str(found)
    assert found.to_json()["best"] == found.best


def test_what_survives_everything_is_moved_by_nothing() -> None:
    model, _, symmetries, objective = network()
    found = attack(objective, model, symmetries, "logit_norm", families=("node", "pair"), evaluations=15)
    assert not found.moved
    assert found.gains == {}
    assert str(found).startswith("nothing moved logit_norm: ")
    for p, q in zip(model.parameters(), found.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_every_state_is_within_the_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    turned = torch.tensor([[0, 2], [1, 3]])
    for group in ("general", "rotary", "orthogonal", "centred"):
        block = Matrices("pair", Mixing("z", 4, group, (), turned), BUDGET)
        state = block.draw(generator)
        for _ in range(30):
            state = block.near(state, 1.0, generator)
            singular = torch.linalg.svdvals(state)
            assert float(singular.max()) <= math.sqrt(BUDGET.condition) * (1 + 1e-9)
            assert float(singular.min()) >= 1 / math.sqrt(BUDGET.condition) * (1 - 1e-9)
            if group in ("orthogonal", "centred"):
                assert torch.allclose(state @ state.T, block.identity())
            if group == "centred":
                assert torch.allclose(state.sum(1), torch.ones(4).double())
    symmetries = network()[2]
    for block in blocks_of(symmetries, ("node", "shift"), BUDGET):
        state = block.draw(generator)
        for _ in range(10):
            state = block.near(state, 1.0, generator)
        largest = state.abs().max() if isinstance(block, Factors) else state.square().mean().sqrt()
        assert float(largest) <= 1 + 1e-12


def test_bad_requests() -> None:
    model, _, symmetries, objective = network()
    with pytest.raises(UsageError, match="expected at least 2 evaluations, found 1"):
        attack(objective, model, symmetries, "trace", evaluations=1)
    with pytest.raises(UsageError, match="of the family bias, found none"):
        attack(objective, model, symmetries, "trace", families=("bias",))
    with pytest.raises(UsageError, match="condition number from 1 to"):
        attack(objective, model, symmetries, "trace", condition=1e12)
    with pytest.raises(NumericalError, match="expected a value of path_norm to climb from, found none"):
        attack(objective, model, symmetries, "path_norm")
