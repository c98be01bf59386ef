"""Copies of networks that keep computed tensors, and what cannot be copied."""

import copy

import pytest
import torch
from torch import Tensor, nn

import landscape as ls
from landscape.errors import UsageError
from landscape.network.copy_check import _marks
from landscape.network.copying import owned
from landscape.objective import Objective
from landscape.reparam import find_symmetries

pytestmark = pytest.mark.filterwarnings("ignore:.*(weight_norm|jit).* is deprecated")
WRAPS = [nn.utils.weight_norm, nn.utils.spectral_norm]


def network(wrap) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(wrap(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 3)).eval()


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_computed_weight_is_copied_and_follows_the_copys_own_parameters(wrap) -> None:
    net, x = network(wrap), torch.randn(6, 4)
    before, kept = net(x), net[0].weight
    own = owned(net)
    assert torch.equal(own(x), before)
    with torch.no_grad():
        for p in own.parameters():
            p.mul_(2)
    again = owned(own)  # after a pass, as engines are converted to float64
    copy.deepcopy(own)
    torch.testing.assert_close(again(x), own(x))
    assert not torch.allclose(own(x), before)
    assert net[0].weight is kept
    assert kept.grad_fn is not None
    assert not net[0]._forward_hooks
    assert torch.equal(net(x), before)
    (own(x).sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in own[0].parameters())


@pytest.mark.parametrize("wrap", WRAPS)
def test_an_objective_of_such_a_network(wrap) -> None:
    net = network(wrap)
    x, y = torch.randn(10, 4), torch.randint(3, (10,))
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y))
    assert float(objective.value().value) == pytest.approx(float(nn.functional.cross_entropy(net(x), y).detach()), rel=1e-5)
    assert bool(ls.eigenpairs(objective, k=1, tol=1e-4).converged.all())
    assert ls.plane(objective, grid=3).check.passed
    if wrap is nn.utils.spectral_norm:  # PyTorch has no rule for the other over several weights, and says so
        many = objective.evaluate_many(torch.stack([objective.theta, 2 * objective.theta]))
        assert many[0].loss.value == pytest.approx(objective.value().value, rel=1e-5)
    double = objective.to("float64")
    torch.testing.assert_close(double.gradient().float(), objective.gradient(), rtol=1e-4, atol=1e-6)
    find_symmetries(net, x)


class Holds(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_scripted_and_traced_networks_are_refused_in_one_line() -> None:
    plain = nn.Sequential(nn.Linear(8, 6), nn.Tanh())
    data = (torch.randn(4, 8), torch.randint(2, (4,)))
    for net, found in (
        (torch.jit.script(plain), "a TorchScript program"),
        (torch.jit.trace(plain, data[0]), "a TorchScript program"),
        (Holds(torch.jit.script(plain)), "the scripted module body"),
    ):
        with pytest.raises(UsageError, match=f"expected Python modules, found {found}; build"):
            Objective(net, nn.CrossEntropyLoss(), data)


def test_a_cached_tensor_is_copied_as_its_value_and_what_cannot_be_copied_is_refused() -> None:
    net = nn.Linear(4, 3)
    net.cached = net.weight * 2
    data = (torch.randn(4, 4), torch.randint(3, (4,)))
    assert owned(net).cached.grad_fn is None
    assert Objective(net, nn.CrossEntropyLoss(), data).value().value > 0
    net.stream = (i for i in range(3))
    with pytest.raises(UsageError, match=r"expected a network that can be copied, found TypeError.*remove attributes"):
        Objective(net, nn.CrossEntropyLoss(), data)


def test_a_tensor_of_more_than_sixteen_million_values_is_watched_to_its_end() -> None:
    """Places between 0 and 2^24 + 3 are not all whole numbers in float32."""
    model = nn.Module()
    model.register_buffer("large", torch.zeros(1).expand(2**24 + 4))
    assert _marks(model)[0][2] == ("0.0",) * 3
