"""Weights under the usual key that are not those that the trainer would evaluate: said, and the others offered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from landscape.checkpoints import read
from landscape.errors import UsageError

pytestmark = pytest.mark.usefixtures("quick")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def optimizer(net: nn.Module, what: str, items: list[torch.Tensor], **group: Any) -> dict[str, Any]:
    """The state of an optimizer with one tensor a weight."""
    numbers = list(range(len(items)))
    return {
        "state": {i: {what: item} for i, item in zip(numbers, items, strict=True)},
        "param_groups": [{"lr": 0.1, "params": numbers, **group}],
    }


def file(tmp_path: Path, net: nn.Module, state: dict[str, Any], key: str = "optimizer") -> Path:
    torch.save({"model": net.state_dict(), key: state}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


FREE = {"train_mode": True, "weight_lr_power": 2.0}


@pytest.mark.parametrize("group", [{"momentum": 0.9}, {"betas": (0.9, 0.999)}])
def test_schedule_free_in_train_mode(tmp_path: Path, group: dict[str, Any]) -> None:
    net = network()
    generator = torch.Generator().manual_seed(1)
    x = [torch.randn(p.shape, generator=generator) for p in net.parameters()]
    z = [torch.randn(p.shape, generator=generator) for p in net.parameters()]
    with torch.no_grad():
        for p, a, b in zip(net.parameters(), x, z, strict=True):
            p.copy_(0.9 * a + 0.1 * b)  # y = beta x + (1 - beta) z
    found = read(file(tmp_path, net, optimizer(net, "z", z, **group, **FREE)))
    assert list(found.candidates) == ["model", "schedule-free x"]
    assert "model holds y, where gradients were taken, not the averaged weights x" in found.notices[0]
    with pytest.raises(UsageError, match="found 2: model, schedule-free x"):
        found.weights()
    averaged = found.weights("schedule-free x").state
    for (name, _), wanted in zip(net.named_parameters(), x, strict=True):
        torch.testing.assert_close(averaged[name], wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(averaged["1.running_var"], net[1].running_var)


def test_schedule_free_in_eval_mode_is_what_it_seems(tmp_path: Path) -> None:
    net = network()
    z = [torch.zeros_like(p) for p in net.parameters()]
    found = read(file(tmp_path, net, optimizer(net, "z", z, momentum=0.9, **FREE | {"train_mode": False})))
    assert list(found.candidates) == ["model"]
    assert found.notices == ()


def test_what_cannot_be_matched_is_said_only(tmp_path: Path) -> None:
    net = network()
    z = [torch.zeros(2) for _ in net.parameters()]
    found = read(file(tmp_path, net, optimizer(net, "z", z, momentum=0.9, **FREE)))
    assert list(found.candidates) == ["model"]
    assert len(found.notices) == 1


@pytest.mark.parametrize(("distance", "between"), [(0.05, True), (0.02, False)])
def test_between_the_two_steps_of_sam(tmp_path: Path, distance: float, between: bool) -> None:
    net = network()
    old = [p.detach().clone() for p in net.parameters()]
    direction = [torch.ones_like(p) for p in old]
    norm = sum(float(d.square().sum()) for d in direction) ** 0.5
    with torch.no_grad():
        for p, d in zip(net.parameters(), direction, strict=True):
            p += distance / norm * d
    found = read(file(tmp_path, net, optimizer(net, "old_p", old, rho=0.05), "optimizer_state_dict"))
    assert list(found.candidates) == (["model", "SAM old_p"] if between else ["model"])
    if between:
        assert "between SAM's two steps: model lies at distance rho = 0.05" in found.notices[0]
        state = found.weights("SAM old_p").state
        assert all(torch.equal(state[name], item) for (name, _), item in zip(net.named_parameters(), old, strict=True))


def test_lightnings_average(tmp_path: Path) -> None:
    net, average = network(), {key: item + 1 for key, item in network().state_dict().items()}
    callback = {"n_averaged": 3, "latest_update_epoch": 5, "scheduler_state": None, "average_model_state": average}
    torch.save({"state_dict": net.state_dict(), "callbacks": {"StochasticWeightAveraging": callback}}, tmp_path / "a.ckpt")
    found = read(tmp_path / "a.ckpt")
    assert list(found.candidates) == ["state_dict", "average_model_state"]
    assert "not the average" in found.notices[0]
    assert torch.equal(found.weights("average_model_state").state["0.weight"], average["0.weight"])


def test_statistics_of_an_averaged_model(tmp_path: Path) -> None:
    torch.save(AveragedModel(network()).state_dict(), tmp_path / "a.pt")
    assert any("unless update_bn ran" in notice for notice in read(tmp_path / "a.pt").weights().notices)
    torch.save(AveragedModel(nn.Linear(2, 2)).state_dict(), tmp_path / "b.pt")
    assert not any("update_bn" in notice for notice in read(tmp_path / "b.pt").weights().notices)
