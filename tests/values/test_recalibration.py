"""BatchNorm re-estimated: against a by-hand forward pass in float64, for any batch size, without a trace in the model."""

import pytest
import torch
from cases import CASES
from torch import nn
from torch.nn import functional as F

from landscape.objective import Objective
from landscape.values import recalibration


class Hands(nn.Module):
    """Convolution, BatchNorm2d, linear, BatchNorm1d, and one layer without running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, eps=1e-3)
        self.fc, self.bn2 = nn.Linear(3 * 16, 5), nn.BatchNorm1d(5, affine=False)
        self.out = nn.Linear(5, 4)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv(x)))
        return self.out(F.relu(self.bn2(self.fc(h.flatten(1)))))


def made(batch_size: int, dtype: str = "float64") -> tuple[Objective, Hands, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Hands()
        x, y = 3 * torch.randn(37, 1, 6, 6) + 1, torch.randint(0, 4, (37,))
    return Objective(net, nn.CrossEntropyLoss(), (x, y), dtype=dtype, batch_size=batch_size), net, x


def by_hand(net: Hands, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """All samples at once, in float64, layer after layer."""
    net, x = net.double(), x.double()
    a = net.conv(x)
    mean, var = a.mean((0, 2, 3)), a.var((0, 2, 3))
    h = (a - mean[:, None, None]) / (var[:, None, None] + 1e-3).sqrt()
    h = F.relu(h * net.bn1.weight[:, None, None] + net.bn1.bias[:, None, None])
    b = net.fc(h.flatten(1))
    return {
        "bn1.running_mean": mean, "bn1.running_var": var, "bn2.running_mean": b.mean(0), "bn2.running_var": b.var(0),
    }  # fmt: skip


@pytest.mark.parametrize("at_once", [2**23, 0])
@pytest.mark.parametrize("batch_size", [1, 7, 36, 37])
def test_statistics_are_those_of_all_samples(batch_size, at_once, monkeypatch):
    """36 leaves a last batch of one sample. Both ways, in one batch or layer after layer, are exact."""
    monkeypatch.setattr(recalibration, "AT_ONCE", at_once)
    objective, net, x = made(batch_size)
    found = objective.recalibrated()
    with torch.no_grad():
        expected = by_hand(net, x)
    assert list(found) == list(expected)
    for name, t in expected.items():
        torch.testing.assert_close(found[name], t, rtol=1e-12, atol=1e-12)


def test_they_are_of_the_weights_asked_for():
    objective, net, x = made(10)
    theta = 1.5 * objective.theta + 0.1
    found = objective.recalibrated(theta)
    with torch.no_grad():
        for (name, p), part in zip(net.named_parameters(), objective.layout.unflatten(theta).items(), strict=True):
            assert name == part[0]
            p.copy_(part[1])
        expected = by_hand(net.double(), x)
    # The copy above went through float32.
    torch.testing.assert_close(found["bn2.running_var"], expected["bn2.running_var"], rtol=1e-5, atol=1e-6)


def test_the_model_is_left_as_it_was():
    objective, net, _ = made(7)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    value, buffers = objective.value().value, objective.buffers
    objective.recalibrated(2 * objective.theta)
    assert objective.value().value == value
    assert all(torch.equal(b, buffers[n]) for n, b in objective.buffers.items())
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    engine = objective._engine.model
    assert not any(m._forward_hooks or m.training for m in engine.modules())


def test_a_failure_on_the_way_leaves_no_hook():
    objective, _, _ = made(7)

    def fail(*_):
        raise ArithmeticError

    handle = objective._engine.model.out.register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        objective.recalibrated()
    handle.remove()
    assert not any(m._forward_hooks for m in objective._engine.model.modules())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_batch_size_does_not_matter(dtype):
    results = [made(b, dtype)[0].recalibrated() for b in (5, 37)]
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=0, atol=0)


def test_networks_without_batchnorm_have_nothing_to_recalibrate():
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y))
    spent = objective.spent.forwards
    assert objective.recalibrated() == {}
    assert objective.spent.forwards == spent


def test_a_constant_channel_has_variance_zero_and_not_below():
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[1] = 0
    x = torch.full((9, 3), 1e4) + torch.randn(9, 3)
    found = Objective(net.eval(), nn.CrossEntropyLoss(), (x, torch.zeros(9, dtype=torch.long))).recalibrated()
    assert float(found["1.running_var"][1]) == 0
    assert float(found["1.running_var"].min()) >= 0
