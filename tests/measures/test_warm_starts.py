"""Eigenvectors of one checkpoint as a start for the next: fewer products, the same values, whatever the start was."""

import copy

import pytest
import torch
from cases import CASES
from reference import dense_hessian
from torch import nn

from landscape.measures import sharpness
from landscape.objective import Objective

NAMES = ["lambda_max", "lambda_min", "adaptive_lambda_max", "layer_relative_lambda_max", "gauss_newton_lambda_max"]


def trajectory(steps: int = 4, width: int = 20) -> list[Objective]:
    """A perceptron after every few steps of gradient descent, float64; it has more weights than are diagonalized at once."""
    torch.manual_seed(0)
    model, loss = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3)), nn.CrossEntropyLoss()
    x = torch.randn(60, 6)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    out = []
    for _ in range(steps):
        for _ in range(25):
            model.zero_grad()
            loss(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.3 * p.grad
        out.append(Objective(copy.deepcopy(model), loss, (x, y), dtype="float64"))
    return out


def test_values_are_those_of_a_cold_start_and_products_are_saved():
    cold = [sharpness(o, NAMES) for o in trajectory()]
    warm = []
    for o in trajectory():
        warm.append(sharpness(o, NAMES, start=warm[-1] if warm else None))
    for one, other in zip(cold, warm, strict=True):
        for name in NAMES:
            a, b = one[name], other[name]
            assert b.converged
            assert abs(a.value - b.value) <= 1.01 * (a.stderr + b.stderr) + 1e-12
    spent = [sum(m.matvecs for r in runs[1:] for m in r.measures.values()) for runs in (cold, warm)]
    assert spent[1] < 0.95 * spent[0]
    assert "start" not in warm[0].provenance
    assert warm[1].provenance["start"] == "eigenvectors of a similar checkpoint"


def test_the_order_of_the_checkpoints_moves_no_value():
    forwards, backwards = [], []
    for o in trajectory(3):
        forwards.append(sharpness(o, NAMES, start=forwards[-1] if forwards else None))
    for o in trajectory(3)[::-1]:
        backwards.append(sharpness(o, NAMES, start=backwards[-1] if backwards else None))
    for one, other in zip(forwards, backwards[::-1], strict=True):
        for name in NAMES:
            assert abs(one[name].value - other[name].value) <= 1.01 * (one[name].stderr + other[name].stderr) + 1e-12


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_an_eigenvector_of_another_eigenvalue_is_no_trap(scale):
    """Hessians of the same eigenvectors in opposite order: the old top is exactly the new bottom."""
    sizes = torch.logspace(0, 1, 60, dtype=torch.float64) * scale
    model = nn.Linear(60, 1, bias=False)
    found = []
    for x in (torch.diag(sizes), torch.diag(sizes.flip(0))):
        objective = Objective(model, nn.MSELoss(), (x, torch.zeros(60, 1)), dtype="float64")
        start = sharpness(found[0], ["lambda_max"]) if found else None
        result = sharpness(objective, ["lambda_max", "lambda_min"], start=start)
        truth = torch.linalg.eigvalsh(torch.from_numpy(dense_hessian(model, nn.MSELoss(), x, torch.zeros(60, 1))))
        assert result["lambda_max"].value == pytest.approx(float(truth[-1]), rel=1e-6)
        assert result["lambda_min"].value == pytest.approx(float(truth[0]), rel=1e-5)
        found.append(objective)


def test_another_network_is_no_neighbour():
    """Names or shapes that differ: the start is left alone, and nothing is said about one."""
    first, second = (Objective(*CASES[i].make(0)[:2], CASES[i].make(0)[2:]) for i in (0, 3))
    result = sharpness(second, ["lambda_max"], start=sharpness(first, ["lambda_max"]))
    assert "start" not in result.provenance
    assert (
        result["lambda_max"].value
        == sharpness(Objective(*CASES[3].make(0)[:2], CASES[3].make(0)[2:]), ["lambda_max"])["lambda_max"].value
    )


def test_a_result_that_was_read_back_is_no_start():
    """The vectors are not part of the JSON."""
    first, second = trajectory(2)
    known = sharpness(first, ["lambda_max"])
    read = type(known).from_json(known.to_json())
    assert read.directions is None
    assert "start" not in sharpness(second, ["lambda_max"], start=read).provenance


def test_what_is_known_already_stays():
    """A second run of the same objective reads its memory, whatever the start."""
    first, second = trajectory(2)
    before = sharpness(second, ["lambda_max"])
    after = sharpness(second, ["lambda_max"], start=sharpness(first, ["lambda_max"]))
    assert after["lambda_max"].value == before["lambda_max"].value
    assert after.measures["lambda_max"].matvecs == 0
