"""Networks whose outputs are affine in every weight tensor, held to second derivatives of the dense kind."""

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_gauss_newton, dense_hessian
from torch import nn
from torch.nn import functional as F

from landscape.measures.paired.shared_pairs import Shared
from landscape.objective import Objective
from landscape.symmetry.affine_tensors import breaks


class Twice(nn.Module):
    """One matrix used twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.relu(self.w(F.relu(self.w(x)))))


class Beside(nn.Module):
    """One matrix used twice side by side: affine all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.maximum(self.w(x), self.w(x.flip(1))))


class Gated(nn.Module):
    """A product of two branches with different weights; affine in each."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.first = nn.Linear(4, 4) if shared else nn.Identity()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.head(self.a(x) * F.leaky_relu(self.b(x)))


class InPlace(nn.Module):
    """The square is written into a view."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.w(x)
        h[:, :2].mul_(h[:, 2:].clone())
        return self.head(h)


class Normed(nn.Module):
    """Weight normalization by hand: divided by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(4, 3)

    def forward(self, x):
        return F.linear(x, self.w.weight / self.w.weight.norm())


class Complex(nn.Module):
    """The size of complex numbers, which is a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.head = nn.Linear(4, 8), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.view_as_complex(self.w(x).view(-1, 4, 2)).abs())


class Scattered(nn.Module):
    """Values of a layer are multiplied into others of it."""

    def __init__(self, reduce: str) -> None:
        super().__init__()
        self.w, self.head, self.reduce = nn.Linear(4, 4), nn.Linear(4, 3), reduce

    def forward(self, x):
        h = self.w(x)
        at = torch.arange(4).flip(0).expand(len(x), 4)
        if self.reduce == "multiply":
            return self.head(torch.scatter(h, 1, at, h, reduce="multiply"))
        return self.head(h.scatter_reduce(1, at, h, reduce=self.reduce))


def plain(*inner):
    return lambda: nn.Sequential(nn.Linear(4, 6), *inner, nn.Linear(6, 3))


NETWORKS = {
    "relu": (plain(nn.ReLU()), True),
    "relu in place": (plain(nn.ReLU(inplace=True)), True),
    "hardtanh, leaky": (plain(nn.Hardtanh(), nn.LeakyReLU(0.2)), True),
    "prelu": (plain(nn.PReLU()), True),
    "batchnorm": (plain(nn.BatchNorm1d(6), nn.ReLU()), True),
    "side by side": (Beside, True),
    "gate": (lambda: Gated(False), True),
    "gelu": (plain(nn.GELU()), False),
    "tanh": (plain(nn.Tanh()), False),
    "layernorm": (plain(nn.LayerNorm(6)), False),
    "softmax": (plain(nn.Softmax(1)), False),
    "twice in a row": (Twice, False),
    "gate behind one layer": (lambda: Gated(True), False),
    "in place": (InPlace, False),
    "normed": (Normed, False),
    "complex": (Complex, False),
    "scatter_reduce, prod": (lambda: Scattered("prod"), False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_operations_tell_what_second_derivatives_say(name):
    build, affine = NETWORKS[name]
    torch.manual_seed(0)
    model = build().double().eval()
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.randint(0, 3, (12,))
    weights = dict(model.named_parameters())
    found = breaks(lambda w: torch.func.functional_call(model, w, (x[:2].clone(),)), weights)
    assert (not found) == affine, found
    rest = dense_hessian(model, nn.CrossEntropyLoss(), x, y) - dense_gauss_newton(model, nn.CrossEntropyLoss(), x, y)
    start, largest = 0, 0.0
    for p in model.parameters():
        part = slice(start, start := start + p.numel())
        largest = max(largest, float(np.abs(rest[part, part]).max()))
    assert (largest < 1e-12) == affine


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
@pytest.mark.parametrize("reduce", ["multiply", "sum", "amax"])
def test_an_operation_with_a_choice_of_how_to_reduce_counts_as_not_read(reduce):
    model = Scattered(reduce)
    assert breaks(lambda w: torch.func.functional_call(model, w, (torch.randn(2, 4),)), dict(model.named_parameters()))


@pytest.mark.parametrize("seed", range(6))
def test_second_derivatives_look_at_every_tensor(seed, monkeypatch):
    """Even where the operations were misread: the curved tensor is the smaller one of two."""
    torch.manual_seed(0)
    model = Complex()
    model.head = nn.Linear(4, 40)
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(12, 4), torch.randint(0, 40, (12,))), dtype="float64")
    monkeypatch.setattr("landscape.measures.paired.shared_pairs.breaks", lambda *_: [])
    shared = Shared.of(objective, torch.Generator().manual_seed(seed))
    assert not shared.is_affine()
    assert "second derivatives do not" in shared.reason


def test_a_weight_that_is_held_may_enter_anything():
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))
    last = {name: t for name, t in model.named_parameters() if name.startswith("2")}
    assert breaks(lambda w: torch.func.functional_call(model, w, (torch.randn(2, 4),)), last) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_cases(case):
    model, _, x, _ = case.make(0)
    found = breaks(lambda w: torch.func.functional_call(model, w, (x[:2],)), dict(model.named_parameters()))
    assert (not found) == (str(case) != "attention"), found
