"""BatchNorm folded into the layer before it: the same function, the same derivatives, and only where it may be."""

from dataclasses import replace

import pytest
import torch
from reference import dense_gauss_newton, dense_hessian
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.network.batches import Batch
from landscape.network.folding import folded
from landscape.objective import Objective
from landscape.tasks import networks


class SecondReader(nn.Module):
    """The first convolution's output goes to its BatchNorm and past it; the second's only to its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3, bias=False), nn.Conv2d(3, 3, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = F.relu(self.norm1(h)) + h
        return self.fc(F.relu(self.norm2(self.b(h))).mean((2, 3)))


class Twice(nn.Module):
    """One BatchNorm used behind two layers, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.norm, self.other = (
            nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3), nn.BatchNorm1d(4), nn.BatchNorm1d(4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.b(F.relu(self.norm(self.a(x))))))
        return self.c(F.relu(self.other(self.b(x))))


class Words(nn.Module):
    """A linear layer on sequences: its outputs are on the last axis, BatchNorm's channels on the second, of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.fc = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.a(x))).mean(1))


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    for name, t in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith("running_var"):
            t.data.copy_(0.3 + torch.rand(t.shape, generator=g))
        elif t.is_floating_point() and t.ndim == 1:
            t.data.copy_(t.data + 0.3 * torch.randn(t.shape, generator=g))
    return model.eval()


MLP = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False))

CASES = [
    ("second reader", SecondReader, (1, 4, 4), [("b", "norm2")]),
    ("used twice", Twice, (4,), None),
    ("words", Words, (4, 5), None),
    ("mlp", lambda: MLP, (4,), [("0", "1"), ("3", "4")]),
]


@pytest.mark.parametrize(("name", "build", "shape", "pairs"), CASES, ids=[c[0] for c in CASES])
def test_what_may_be_folded_is_and_every_derivative_is_the_same(name, build, shape, pairs):
    torch.manual_seed(0)
    model = trained(build())
    x, y = torch.randn(9, *shape), torch.randint(0, 2, (9,))
    found = folded(model, Batch((x[:2],), {}, y[:2]))
    assert (list(found.pairs) if found else None) == pairs
    before = {n: t.clone() for n, t in model.state_dict().items()}
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=4)
    eye = torch.eye(objective.dim, dtype=torch.float64)
    hessian = torch.from_numpy(dense_hessian(model, nn.CrossEntropyLoss(), x, y))
    torch.testing.assert_close(objective.hvp(eye), hessian, rtol=0, atol=1e-10 * float(hessian.abs().max()))
    ggn = torch.from_numpy(dense_gauss_newton(model, nn.CrossEntropyLoss(), x, y))
    torch.testing.assert_close(objective.ggnvp(eye), ggn, rtol=0, atol=1e-10 * float(ggn.abs().max()))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_at_an_untrained_batchnorm_a_second_reader_is_still_seen():
    """With gamma 1, beta 0, mean 0, variance 1 the wrong fold gives the right outputs and wrong derivatives."""
    torch.manual_seed(0)
    found = folded(SecondReader().eval(), Batch((torch.randn(2, 1, 4, 4),), {}, torch.zeros(2)))
    assert found is not None
    assert found.pairs == (("b", "norm2"),)


def test_a_residual_network_folds_whole_and_buffers_still_count():
    torch.manual_seed(0)
    model = trained(networks.resnet20(width=4, blocks=1))
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 10, (6,))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    assert len(objective._engine.folded.pairs) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    with torch.no_grad():
        plain = nn.functional.cross_entropy(model.double()(x.double()), y)
        assert objective.value().value == pytest.approx(float(plain), rel=1e-12)
        buffers = {n: 1.5 * b for n, b in objective.buffers.items()}
        other = torch.func.functional_call(model, buffers, (x.double(),))
        moved = objective.evaluate(buffers=buffers).loss.value
        assert moved == pytest.approx(float(nn.functional.cross_entropy(other, y)), rel=1e-12)
    block = objective.only("layer1.0.bn1", "linear")
    v = torch.randn(block.dim, dtype=torch.float64)
    whole = torch.zeros(objective.dim, dtype=torch.float64)
    places = torch.cat([torch.arange(e.start, e.stop) for e in objective.layout if e.name in block.layout.names])
    whole[places] = v
    torch.testing.assert_close(block.hvp(v), objective.hvp(whole)[places])


def test_kept_graphs_give_the_same_products_and_are_let_go():
    torch.manual_seed(0)
    model, x, y = trained(SecondReader()), torch.randn(9, 1, 4, 4), torch.randint(0, 2, (9,))
    first, second = (Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=4) for _ in range(2))
    v = torch.randn(3, first.dim, dtype=torch.float64)
    fresh, again = first.hvp(v), first.hvp(v)
    assert torch.equal(fresh, again)
    torch.testing.assert_close(first.hvp(v[1]), fresh[1], rtol=1e-12, atol=1e-14)  # of one vector, sums may round otherwise
    assert first._engine._kept._graphs
    second.hvp(v)
    assert not first._engine._kept._graphs  # one network at a time
    assert torch.equal(first.hvp(v), fresh)
    assert first.to("float64")._engine._kept._graphs == []


def test_graphs_beyond_their_room_are_built_each_time():
    torch.manual_seed(0)
    model, x, y = trained(SecondReader()), torch.randn(9, 1, 4, 4), torch.randint(0, 2, (9,))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    v = torch.randn(objective.dim, dtype=torch.float64)
    kept = objective.hvp(v)
    assert objective._engine._kept._graphs
    objective._engine = replace(objective._engine, room=-1)
    assert torch.equal(objective.hvp(v), kept)
    assert torch.equal(objective.hvp(v), kept)
    assert not objective._engine._kept._graphs
