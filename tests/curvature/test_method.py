"""Every way to compute a product gives the dense Hessian's, and the trial takes none that does not."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from cases import CASES, Case
from reference import dense_hessian
from torch import Tensor, nn

from landscape.curvature.double_backward import REPLACEMENTS
from landscape.curvature.method import PLAIN, Method
from landscape.curvature.trial import candidates, chosen
from landscape.objective import Objective

WAYS = [Method(*flags, smallest=0) for flags in product((False, True), repeat=4)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_way_gives_the_dense_product(case: Case) -> None:
    model, loss, x, y = case.make(0)
    truth = torch.from_numpy(dense_hessian(model, loss, x, y))
    objective = Objective(model, loss, (x, y), dtype="float64", batch_size=9)
    v = torch.randn(3, objective.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = float((v @ truth).abs().max())
    for way in WAYS:
        found = objective.by(way).hvp(v)
        assert float((found - v @ truth).abs().max()) <= 1e-9 * scale, way.name


@pytest.fixture
def timed(monkeypatch) -> None:
    """Small networks, too, are tried out."""
    monkeypatch.setattr("landscape.curvature.trial._SMALL", 0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_small_network_takes_the_same_way_every_time(case: Case) -> None:
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y))
    assert objective.method == Method(folded=objective._engine.folded is not None, together=True)


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_trial_ends_with_a_way_that_works(case: Case) -> None:
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y))
    way = objective.method
    folded = objective._engine.folded is not None
    assert way in (*candidates(objective._engine), Method(folded=folded, written_out=True), Method(folded=folded))
    assert objective.subset(5).method is way  # chosen once for all that is derived
    assert objective.by(PLAIN).method == PLAIN
    assert objective.method is way


class Flat(nn.Module):
    """Reads its images with `view`, which only one order in memory allows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(x.view(len(x), -1)))


@pytest.mark.usefixtures("timed")
def test_a_network_that_reads_its_memory_is_not_given_another_order() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 3, 4, 4, generator=g), torch.randint(0, 3, (12,), generator=g)
    objective = Objective(Flat(), nn.CrossEntropyLoss(), (x, y))
    assert not objective.method.channels_last
    assert torch.isfinite(objective.hvp(objective.theta)).all()


@pytest.mark.usefixtures("timed")
def test_a_wrong_way_is_passed_over(monkeypatch) -> None:
    """A replacement whose derivative is wrong must not be used, however fast it is."""
    monkeypatch.setitem(REPLACEMENTS, nn.functional.relu, lambda x, inplace=False: 0.9 * x.clamp_min(0))
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 3))
    x, y = torch.randn(40, 3, 8, 8, generator=g), torch.randint(0, 3, (40,), generator=g)
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y))
    objective.preflight()
    assert not chosen(objective._engine, objective.theta).written_out


def test_names_are_words() -> None:
    assert PLAIN.name == "plain"
    assert Method(folded=True, written_out=True, channels_last=True).name == (
        "BatchNorm folded, double backward written out, channels last"
    )
    assert replace(PLAIN, together=True).name == "vectors together"


@pytest.mark.usefixtures("timed")
def test_whoever_asks_first_the_choice_is_that_of_the_whole(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        "landscape.objective.preparation.chosen", lambda engine, theta: asked.append(len(engine.batches[0])) or PLAIN
    )
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y))
    assert objective.subset(2).method == objective.method == PLAIN
    assert asked == [len(x)]
    assert objective.with_loss(loss).method == PLAIN  # another function: it chooses for itself
    assert len(asked) == 2
