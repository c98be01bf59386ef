"""Batches put together and cut: the same samples in the same order, however they came."""

import pytest
import torch
from torch import nn

from landscape.curvature.method import Method
from landscape.network.batches import Batch, regrouped
from landscape.objective import Objective


def batches(*sizes: int, width: int = 3) -> list[Batch]:
    x, y = torch.arange(sum(sizes) * width).view(-1, width).float(), torch.arange(sum(sizes))
    return [Batch((a,), {}, b) for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]


@pytest.mark.parametrize("sizes", [(128, 128, 64), (320,), (100, 100, 100, 20), (1,) * 320, (319, 1)])
def test_however_the_samples_came_they_leave_in_the_same_batches(sizes):
    found = regrouped(batches(*sizes), 128)
    assert [len(b) for b in found] == [128, 128, 64]
    assert torch.equal(torch.cat([b.target for b in found]), torch.arange(320))
    assert torch.equal(torch.cat([b.args[0] for b in found]), torch.arange(960).view(320, 3).float())


def test_what_cannot_be_put_together_is_only_cut():
    short, long = batches(5, width=3), batches(5, width=4)  # as sequences that were padded batch by batch
    assert [len(b) for b in regrouped([*short, *long], 4)] == [4, 1, 4, 1]
    assert [len(b) for b in regrouped([*short, Batch(long[0].args, {"mask": True}, long[0].target)], 8)] == [5, 5]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0, 0.5]))])
def test_a_small_network_takes_small_batches_together_and_gives_the_same(loss):
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), torch.randn(90, 6), torch.randint(0, 4, (90,))
    one, many = (Objective(net, loss, (x, y), dtype="float64", batch_size=size) for size in (90, 7))
    v = torch.randn(3, one.dim, dtype=torch.float64)
    before = many.evaluate()
    assert (many.hvp(v) - one.hvp(v)).abs().max() < 1e-14
    assert (many.gradient() - one.gradient()).abs().max() < 1e-15
    assert many.batch_sizes == [90]
    after = many.evaluate()
    assert before.loss.value == after.loss.value == one.evaluate().loss.value, "to the bit, whatever went before"
    assert (many.sample_weights == one.sample_weights).all()


def wide() -> Objective:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 1500), nn.ReLU(), nn.Linear(1500, 3))
    return Objective(net, nn.CrossEntropyLoss(), (torch.randn(900, 20), torch.randint(0, 3, (900,))), batch_size=16)


@pytest.mark.parametrize("product", ["hvp", "ggnvp", "fishervp"])
def test_the_first_product_has_the_bits_of_the_next(product):
    objective = wide()
    v = torch.randn(objective.dim)
    first = getattr(objective, product)(v)
    assert 1 < len(objective.batch_sizes) < 57
    assert max(objective.batch_sizes) - min(objective.batch_sizes) <= len(objective.batch_sizes)
    assert torch.equal(first, getattr(objective, product)(v))


@pytest.mark.parametrize("method", [Method(), Method(written_out=True), Method(together=True)])
def test_a_way_that_is_told_has_the_batches_and_bits_of_the_way_that_was_chosen(method):
    chosen, told = wide(), wide().by(method)
    v = torch.randn(2, chosen.dim)
    chosen.hvp(v)
    first = told.hvp(v)
    assert told.batch_sizes == chosen.batch_sizes
    assert torch.equal(first, told.hvp(v))
    assert torch.equal(first, chosen.by(method).hvp(v))


def test_a_network_that_is_not_small_keeps_its_batches():
    net = nn.Sequential(nn.Linear(64, 2000), nn.ReLU(), nn.Linear(2000, 4))
    objective = Objective(net, nn.CrossEntropyLoss(), (torch.randn(1024, 64), torch.randint(0, 4, (1024,))), batch_size=512)
    objective.preflight()
    assert objective.batch_sizes == [512, 512]


def test_a_loss_that_does_not_come_apart_sees_all_samples_at_once():
    loss = lambda output, target: (output.mean(0) - target.mean(0)).square().sum()  # noqa: E731  # of batch means
    data = (torch.randn(12, 3), torch.randn(12, 2))
    objective = Objective(nn.Linear(3, 2), loss, data, batch_size=4)
    objective.evaluate()
    assert objective.batch_sizes == [12]
