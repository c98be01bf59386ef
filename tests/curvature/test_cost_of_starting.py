"""What is computed before the first product: each footprint once, and few products where there are many weights."""

import gc
from collections import Counter

import pytest
import torch
from torch import nn

import landscape as ls
from landscape.curvature import footprint, preflight, trial
from landscape.curvature.double_backward import REPLACEMENTS
from landscape.curvature.engine import Engine
from landscape.curvature.method import Method
from landscape.errors import NumericalError


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Vectors multiplied so far, by dtype."""
    counts: Counter[str] = Counter()
    original = Engine.hvp

    def counted(self: Engine, theta: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        counts[str(theta.dtype)] += len(v)
        return original(self, theta, v)

    monkeypatch.setattr(Engine, "hvp", counted)
    monkeypatch.setattr(trial, "_SMALL", 0)  # as of a network that is worth a trial
    monkeypatch.setattr(trial, "_LONG", 0.0)  # and whose products take long
    return counts


@pytest.fixture
def many_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are treated as those with very many weights."""
    monkeypatch.setattr(trial, "_MANY_WEIGHTS", 0)
    monkeypatch.setattr(preflight, "_MANY_WEIGHTS", 0)


def objective(act: nn.Module | None = None) -> ls.Objective:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 30), act or nn.Tanh(), nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 3))
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    return ls.Objective(net, nn.CrossEntropyLoss(), (x, torch.arange(40) % 3), memory=1 << 30)


def test_few_products_with_many_weights(products: Counter[str], many_weights: None) -> None:
    started = objective()
    started.plan  # noqa: B018 - a property that makes all choices
    # One sample and two for each of two methods; two of each method in the trial.
    assert products["torch.float32"] <= 8
    # For the symmetry, one of them compared with differences of gradients; and the chosen method's beside the plain one's.
    assert products["torch.float64"] == 2 + 2


def test_products_of_other_networks(products: Counter[str]) -> None:
    started = objective()
    started.plan  # noqa: B018 - likewise
    assert products["torch.float64"] <= 3 + 4


def test_every_footprint_is_measured_once(monkeypatch: pytest.MonkeyPatch, products: Counter[str]) -> None:
    measured = []
    original = footprint._measure
    monkeypatch.setattr(footprint, "_measure", lambda engine, theta: measured.append(engine.method) or original(engine, theta))
    started = objective()
    started.plan  # noqa: B018 - likewise
    started.hvp(torch.ones(started.dim))
    assert len(measured) == len(set(measured)) <= 2


class Wrong(torch.autograd.Function):
    """The square, with half its second derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x + x.detach())


class Squared(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Wrong.apply(x)


@pytest.mark.parametrize("many", [False, True])
def test_a_wrong_second_derivative_is_still_found(many: bool, request: pytest.FixtureRequest) -> None:
    if many:
        request.getfixturevalue("many_weights")
    with pytest.raises(NumericalError, match="finite difference of gradients"):
        objective(Squared()).preflight()


def test_products_are_the_same(many_weights: None, products: Counter[str]) -> None:
    few = objective()
    v = torch.randn(few.dim, generator=torch.Generator().manual_seed(2))
    exact = few.to("float64").hvp(v.double())
    assert float((few.hvp(v) - exact).norm()) < 1e-5 * float(exact.norm())


class Skew(torch.autograd.Function):
    """z^2 / 2 of each of two columns, with a Jacobian of the gradient that is not symmetric."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.square() / 2

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return g * (z + torch.stack([z[1], -z[0]]))


class Shifted(nn.Module):
    """A network and a tensor of zeros, whose own block of the Hessian is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.zero = nn.Linear(6, 3), nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) + torch.cat([Skew.apply(self.zero), self.zero.sum()[None]])


@pytest.mark.parametrize("many", [False, True])
def test_an_asymmetric_block_of_zeros_is_found(many: bool, request: pytest.FixtureRequest) -> None:
    if many:
        request.getfixturevalue("many_weights")
    torch.manual_seed(0)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(NumericalError, match="symmetric Hessian"):
        ls.Objective(Shifted(), nn.CrossEntropyLoss(), (x, torch.arange(40) % 3)).preflight()


@pytest.mark.parametrize("many", [False, True])
def test_rectifiers_at_their_kink_by_biases_of_zero_are_no_mistake(many: bool, request: pytest.FixtureRequest) -> None:
    if many:
        request.getfixturevalue("many_weights")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    nn.init.zeros_(net[0].bias)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    x[::2] = 0  # as the border of an image
    ls.Objective(net, nn.CrossEntropyLoss(), (x, torch.arange(40) % 3)).preflight()


def test_as_many_vectors_as_planned_are_alive_in_the_checks(many_weights: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 400), nn.Tanh(), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 3))
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    engine = ls.Objective(net, nn.CrossEntropyLoss(), (x, torch.arange(8) % 3), memory=1 << 30)._engine
    alive = []
    for name in ("hvp", "gradient"):
        original = getattr(Engine, name)

        def counted(self: Engine, theta: torch.Tensor, *v: torch.Tensor, original=original):  # type: ignore[no-untyped-def]
            gc.collect()
            alive.append(live.now / theta.nbytes)
            return original(self, theta, *v)

        monkeypatch.setattr(Engine, name, counted)
    with footprint.Live() as live:
        preflight.check_engine(engine)
    # At the first gradient only the weights are alive; views of the network's own, in float32, are counted, too.
    most = 1 + max(alive) - alive[0]
    assert most == pytest.approx(footprint._CHECK_VECTORS, abs=0.2), alive


@pytest.mark.parametrize("slope", [1.0, 1.001])
def test_methods_are_compared_in_float64_however_many_the_weights(
    slope: float, many_weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A derivative that is wrong by a thousandth is within float32's tolerance, and not right."""
    monkeypatch.setitem(REPLACEMENTS, nn.functional.relu, lambda x, inplace=False: slope * x.clamp_min(0))
    engine = objective(nn.ReLU())._engine
    theta = engine.layout.flatten(dict(engine.model.named_parameters())).detach()
    truth = trial._Truth(engine, theta, torch.ones(1, len(theta)))
    assert truth.product.dtype == torch.float64
    assert [len(b) for b in truth.engine.batches] == [2]
    assert truth.agrees(Method(written_out=True)) is (slope == 1.0)
